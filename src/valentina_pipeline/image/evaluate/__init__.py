"""Stage `evaluate`: generated images, scores, metrics and report."""
