"""Release of a trained adapter of any medium: the decision by gates, and the package."""
