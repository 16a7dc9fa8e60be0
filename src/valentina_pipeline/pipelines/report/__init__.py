"""Lay out the evaluation as a comparison grid and an HTML page."""

from valentina_pipeline.pipelines.report.pipeline import create_pipeline

__all__ = ["create_pipeline"]
