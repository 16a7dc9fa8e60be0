"""Parameters of the stage `ingest`."""

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class IngestConfig(StrictConfig):
    """Sources and limits of ingested images."""

    num_rendered_images: int = Field(
        default=30, ge=4, le=10_000, description="number of portraits to render if the source is the renderer"
    )
    min_side: int = Field(ge=16, le=16_384, description="minimum pixels of the shorter side")
    max_phash_distance: int = Field(
        default=3,
        ge=0,
        le=32,
        description="images whose perceptual hashes differ in at most this many of 64 bits are duplicates",
    )
    max_pixels: int = Field(ge=10_000, description="maximum width times height")
    max_bytes: int = Field(ge=10_000, description="maximum size of the file")
    min_sharpness: float = Field(
        default=10, ge=0, description="variance of the Laplacian; 0 turns the check off"
    )
    brightness_range: tuple[float, float] = Field(
        default=(0.08, 0.95), description="minimum and maximum mean luminance, in [0, 1]"
    )
    max_clipped_fraction: float = Field(
        default=0.7, ge=0, le=1, description="share of black and white pixels"
    )
    max_noise: float = Field(default=20, gt=0, description="standard deviation in 8-bit levels")
    min_jpeg_quality: float = Field(
        default=50, ge=0, le=100, description="libjpeg's quality; 0 turns the check off"
    )
    max_overlay_letters: int = Field(
        default=-1, ge=-1, description="maximum number of readable letters; -1 turns the check off"
    )
    clip_iqa_model: str = Field(
        default="", description="CLIP model for CLIP-IQA scores, open_clip's name or a folder"
    )
    min_clip_iqa: float = Field(default=0.3, ge=0, le=1, description="minimum CLIP-IQA score")
    brisque_model: str = Field(default="", description="folder with OpenCV's BRISQUE files; empty: none")
    max_brisque: float = Field(default=50, ge=0, le=100, description="0 is natural, 100 distorted")
    upscale_model: str = Field(
        default="", description="Swin2SR model for small but good images, hub id or folder; empty: none"
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="hosts that https:// sources may be read from"
    )
