"""Compares ways to train. A question is a few lines of data in `studies/`: a task, arms, seeds and what is compared."""
