"""What a Dataset holds (single samples, clips, arrays, pictures) as a batch of the library, and back."""
