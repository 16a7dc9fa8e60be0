"""Parameters of the stage `align`."""

from typing import Literal

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class AlignConfig(StrictConfig):
    """How faces are found and cropped."""

    resolution: int = Field(
        ge=64, le=2048, multiple_of=8, description="pixels, width and height of the aligned portrait"
    )
    min_face_probability: float = Field(gt=0, lt=1, description="of MTCNN's detection")
    # people have 0.62 and more, animals and toys 0 to 0.49
    min_person: float = Field(
        default=0.55, ge=0, le=1, description="of the score that a face is a person's; 0: any face"
    )
    crop: Literal["face", "bust", "full"] = Field(
        default="face", description="what a portrait shows; full: the whole picture"
    )
    margin: float = Field(
        default=2.0, ge=1, le=6, description="side of a face's crop in face heights; a bust's is 1.8 times it"
    )
    remove_background: str = Field(
        default="", description="a segmentation model, hub id or folder; empty: stays"
    )
    outlier_distance: float = Field(gt=0, le=2, description="cosine distance to the median face embedding")
    duplicate_distance: float = Field(
        default=0.008, ge=0, le=2, description="of faces in two pictures of one moment"
    )
    min_face_side: int = Field(ge=20, description="height of the face in the picture, in pixels")
    max_yaw: float = Field(default=60, gt=0, le=90, description="degrees to either side")
    max_pitch: float = Field(default=45, gt=0, le=90, description="degrees up or down")
    max_misfit: float = Field(
        default=0.2, gt=0, description="landmarks from a head's, as a share of eyes to mouth"
    )
    # clear faces have 0.23 and more, masks and sunglasses 0 to 0.13
    min_contrast: float = Field(
        default=0.1, ge=0, le=1, description="around each landmark, as a share of the face's"
    )
