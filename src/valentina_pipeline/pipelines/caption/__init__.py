"""Caption only what varies; the trigger word absorbs the character's fixed traits."""

from valentina_pipeline.pipelines.caption.pipeline import create_pipeline

__all__ = ["create_pipeline"]
