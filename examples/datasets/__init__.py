"""Data sets of the examples: people and faces, drawn from a seed or read from the published files."""
