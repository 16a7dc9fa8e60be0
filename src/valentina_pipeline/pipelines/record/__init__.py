"""Complete the tracked run, also for stages that came from the cache, and print the figures."""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
