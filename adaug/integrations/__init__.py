"""One small file for each trainer. Each needs the extra of its name, such as `adaug[lightning]`; the core imports none."""

__all__: list[str] = []
