"""Stage `align`: from accepted images to aligned portraits."""
