"""Measure identity, prompt following, diversity and memorization against the base model."""

from valentina_pipeline.pipelines.evaluate.pipeline import create_pipeline

__all__ = ["create_pipeline"]
