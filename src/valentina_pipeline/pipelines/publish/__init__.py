"""Write the package that anyone can serve."""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
