"""Write the package that anyone can serve."""

from valentina_pipeline.pipelines.publish.pipeline import create_pipeline

__all__ = ["create_pipeline"]
