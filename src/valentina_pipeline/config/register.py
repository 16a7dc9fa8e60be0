"""Parameters of the stage `register`."""

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class RegisterConfig(StrictConfig):
    """Gates that a candidate must pass to become champion."""

    min_identity_gain: float = Field(
        default=0.3,
        ge=-2,
        le=2,
        description="over the base model with the character's full description, in cosine similarity",
    )
    min_identity_ratio: float = Field(
        default=0.8, ge=0, le=2, description="relative to the ceiling that real portraits reach"
    )
    min_face_detection_rate: float = Field(
        default=0.9, ge=0, le=1, description="share of images with a detected face"
    )
    max_clip_t_drop: float = Field(default=0.1, ge=0, le=1, description="relative to the base model")
    max_memorization_rate: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of images closer to a training image than portraits are to each other",
    )
