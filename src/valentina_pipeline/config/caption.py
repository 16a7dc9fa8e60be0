"""Parameters of the section `caption`: the captioner, which the stage `describe` runs."""

from typing import Literal

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class CaptionConfig(StrictConfig):
    """Captioning model and its settings."""

    captioner: Literal["attributes", "blip", "vlm", "tagger"] = Field(
        description="attributes reads attributes.json or the renderer; the others are models"
    )
    model: str = Field(default="", description="hub id or folder; empty: the captioner's default")
    tag_threshold: float = Field(default=0.35, gt=0, lt=1, description="minimum score of a tagger's tag")
