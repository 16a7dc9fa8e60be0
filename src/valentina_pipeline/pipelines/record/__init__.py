"""Complete the tracked run, also for stages that came from the cache, and print the figures."""

from valentina_pipeline.pipelines.record.pipeline import create_pipeline

__all__ = ["create_pipeline"]
