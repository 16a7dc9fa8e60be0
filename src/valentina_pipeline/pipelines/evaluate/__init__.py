"""Measure identity, prompt following, diversity and memorisation against the bare base."""

from valentina_pipeline.pipelines.evaluate.pipeline import create_pipeline

__all__ = ["create_pipeline"]
