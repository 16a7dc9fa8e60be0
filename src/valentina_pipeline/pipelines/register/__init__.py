"""Decide by the gates whether the candidate becomes champion; build and register its package."""

from valentina_pipeline.pipelines.register.pipeline import create_pipeline

__all__ = ["create_pipeline"]
