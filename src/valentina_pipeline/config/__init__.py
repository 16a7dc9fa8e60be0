"""Parameters: a model for each stage, and the resolution of effective values."""
