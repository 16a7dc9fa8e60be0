"""Parameters: one model per stage, and how the effective values are found."""
