"""The user's model: bound once, looked at and scored without a trace, and trained as the user wrapped it."""
