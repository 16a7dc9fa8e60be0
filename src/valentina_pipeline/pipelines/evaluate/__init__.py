"""Measure identity, prompt following, diversity and memorisation against the bare base."""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
