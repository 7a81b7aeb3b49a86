"""Data sets that the examples share: people and faces, drawn from a seed or read from the files as published."""
