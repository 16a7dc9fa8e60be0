"""Import authorized images; each rejected image has its reason in a report."""

from valentina_pipeline.pipelines.ingest.pipeline import create_pipeline

__all__ = ["create_pipeline"]
