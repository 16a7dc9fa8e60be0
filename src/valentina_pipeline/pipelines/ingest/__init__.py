"""Take in authorised images; every image left out has its reason."""

from valentina_pipeline.pipelines.ingest.pipeline import create_pipeline

__all__ = ["create_pipeline"]
