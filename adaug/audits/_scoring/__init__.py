"""What a run of an audit needs besides its loop: checks, what counts, what identifies it, and pictures."""
