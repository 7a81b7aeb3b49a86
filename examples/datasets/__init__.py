"""Data sets of the hourglass and the benchmarks: drawn people, and the published files of MPII, LSP and 300-W."""
