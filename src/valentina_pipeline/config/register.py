"""Parameters of the stage `register`."""

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class RegisterConfig(StrictConfig):
    """The gates that a candidate passes to become champion."""

    min_identity_gain: float = Field(ge=-2, le=2)
    min_identity_ratio: float = Field(ge=0, le=2)
    min_face_found: float = Field(ge=0, le=1)
    max_clip_t_drop: float = Field(ge=0, le=1)
    max_memorised: float = Field(ge=0, le=1)
