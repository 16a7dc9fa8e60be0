"""Portraits in, a servable character out."""
