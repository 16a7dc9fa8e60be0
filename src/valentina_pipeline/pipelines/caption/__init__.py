"""Word what varies; the trigger takes on what is fixed."""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
