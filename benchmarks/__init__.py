"""One question a file; `results/` holds what each printed, with the command and the machine."""
