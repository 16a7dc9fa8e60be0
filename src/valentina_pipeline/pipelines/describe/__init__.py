"""Describe portraits in fields with the configured captioner."""

from valentina_pipeline.pipelines.describe.pipeline import create_pipeline

__all__ = ["create_pipeline"]
