"""Stage `caption`: descriptions, captions and the dataset card."""
