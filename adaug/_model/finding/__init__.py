"""Finds the layers that generators read and masks multiply, if the user names none."""
