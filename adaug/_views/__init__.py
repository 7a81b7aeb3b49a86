"""A view, and how it moves pixels, points and boxes."""
