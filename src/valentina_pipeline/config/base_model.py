"""Parameters of a base model."""

from typing import Literal

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class FaceEmbedderConfig(StrictConfig):
    """Which network turns a face into an identity vector."""

    kind: Literal["tiny", "facenet"]
    path: str


class ClipConfig(StrictConfig):
    """Which CLIP measures prompt following (CLIP-T) and image likeness (CLIP-I)."""

    kind: Literal["tiny", "open_clip"]
    path: str


class BaseConfig(StrictConfig):
    """A base model: where it is, what it is, and the networks that judge its images."""

    family: Literal["sdxl", "sd15"]
    path: str = Field(description="a folder in diffusers' layout, a .safetensors file, or a hub id")
    config: str = Field(
        default="",
        description="folder or hub id whose configuration and tokenizers a base in one file has",
    )
    resolution: int = Field(ge=64, le=2048, multiple_of=8)
    licence: str
    obtain: str = Field(description="what to do when it is not at hand")
    embed: bool = Field(description="small enough to travel inside each package")
    face_embedder: FaceEmbedderConfig
    clip: ClipConfig
    controls: dict[str, str] = Field(
        default={}, description="kind of picture -> folder of the ControlNet that keeps to it"
    )
