"""Stages `describe` and `caption`: descriptions, captions and the dataset card."""
