"""One small file per trainer, each under an extra of its name; none is imported by the core."""
