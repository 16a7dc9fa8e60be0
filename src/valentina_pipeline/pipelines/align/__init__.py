"""Detect the one face of each image, level it and crop it to the base model's resolution."""

from valentina_pipeline.pipelines.align.pipeline import create_pipeline

__all__ = ["create_pipeline"]
