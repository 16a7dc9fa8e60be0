"""Parameters of the stage `align`."""

from typing import Literal

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class AlignConfig(StrictConfig):
    """Detection, screening and cropping of faces."""

    resolution: int = Field(
        ge=64, le=2048, multiple_of=8, description="width and height of the aligned portrait in pixels"
    )
    min_detection_confidence: float = Field(gt=0, lt=1, description="minimum confidence of MTCNN's detection")
    # measured: people 0.62 and more, animals and toys 0 to 0.49
    min_person: float = Field(
        default=0.55, ge=0, le=1, description="minimum score that a face is a person's; 0 accepts any face"
    )
    crop: Literal["face", "bust", "full"] = Field(
        default="face", description="content of a portrait; full: the whole image"
    )
    crop_scale: float = Field(
        default=2.0,
        ge=1,
        le=6,
        description="side of a face crop in face heights; a bust crop is 1.8 times as large",
    )
    background_model: str = Field(
        default="", description="segmentation model, hub id or folder; empty keeps the background"
    )
    max_identity_distance: float = Field(
        gt=0, le=2, description="maximum cosine distance to the median face embedding"
    )
    duplicate_face_distance: float = Field(
        default=0.008, ge=0, le=2, description="maximum cosine distance of faces in two images of one moment"
    )
    min_face_side: int = Field(ge=20, description="minimum height of the face in the image, in pixels")
    max_yaw: float = Field(default=60, gt=0, le=90, description="degrees to either side")
    max_pitch: float = Field(default=45, gt=0, le=90, description="degrees up or down")
    max_landmark_error: float = Field(
        default=0.2, gt=0, description="maximum landmark error, as a share of the distance from eyes to mouth"
    )
    # measured: clear faces 0.23 and more, masks and sunglasses 0 to 0.13
    min_landmark_contrast: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="minimum contrast at each landmark, as a share of the face's contrast",
    )
