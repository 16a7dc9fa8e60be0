"""Stages `evaluate` and `report`: generated images, scores, metrics and report."""
