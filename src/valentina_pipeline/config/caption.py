"""Parameters of the stage `caption`."""

from typing import Literal

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class CaptionConfig(StrictConfig):
    """Who words the captions."""

    captioner: Literal["attributes", "blip", "vlm", "tagger"] = Field(
        description="attributes reads a sidecar file or the renderer; the others are models"
    )
    model: str = Field(default="", description="hub id or folder; empty: the captioner's own")
    threshold: float = Field(default=0.35, gt=0, lt=1, description="score from which a tagger's tag counts")
