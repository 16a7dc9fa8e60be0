"""Parameters of a base model."""

from typing import Literal

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class FaceEmbedderConfig(StrictConfig):
    """Network that embeds a face as an identity vector."""

    kind: Literal["tiny", "facenet"]
    path: str


class ClipConfig(StrictConfig):
    """CLIP model that measures prompt adherence (CLIP-T) and image similarity (CLIP-I)."""

    kind: Literal["tiny", "open_clip"]
    path: str


class BaseConfig(StrictConfig):
    """A base model: its location, its properties and the networks that score its images."""

    family: Literal["sdxl", "sd15"]
    path: str = Field(description="a folder in diffusers' layout, a .safetensors file, or a hub id")
    config: str = Field(
        default="",
        description="folder or hub id with the configuration and tokenizers of a single-file base",
    )
    resolution: int = Field(ge=64, le=2048, multiple_of=8)
    license: str
    download_instructions: str = Field(description="how to download it when it is missing")
    bundle_in_package: bool = Field(description="bundle it in each package; for small models")
    face_embedder: FaceEmbedderConfig
    clip: ClipConfig
    controlnets: dict[str, str] = Field(
        default={}, description="kind of control image -> folder of its ControlNet"
    )
