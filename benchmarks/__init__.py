"""Each file answers one question. `results/` has what they printed, with command and machine."""
