"""Word what varies; the trigger takes on what is fixed."""

from valentina_pipeline.pipelines.caption.pipeline import create_pipeline

__all__ = ["create_pipeline"]
