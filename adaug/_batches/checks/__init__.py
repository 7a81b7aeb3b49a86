"""Whether an entry has the shape that its kind needs, and whether one that stays may stay."""
