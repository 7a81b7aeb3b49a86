"""A step of training: what it may change, and its halves before and after the training pass."""
