"""Complete the tracked run, including stages restored from the cache, and print the metrics."""

from valentina_pipeline.pipelines.record.pipeline import create_pipeline

__all__ = ["create_pipeline"]
