"""What running difficulty sums up: the parts of a policy, and how far single rows count."""
