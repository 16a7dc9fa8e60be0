"""Deliver the package that serves the character."""

from valentina_pipeline.pipelines.publish.pipeline import create_pipeline

__all__ = ["create_pipeline"]
