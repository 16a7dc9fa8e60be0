"""Parameters of the stage `ingest`."""

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class IngestConfig(StrictConfig):
    """Which images are taken in."""

    count: int = Field(
        default=30, ge=4, le=10_000, description="portraits to render when the source is the renderer"
    )
    min_side: int = Field(ge=16, le=16_384, description="pixels of the shorter side")
    near_duplicate_bits: int = Field(
        default=3,
        ge=0,
        le=32,
        description="images whose perceptual hashes differ in so few of 64 bits are one image",
    )
    max_pixels: int = Field(ge=10_000, description="width times height")
    max_bytes: int = Field(ge=10_000, description="size of the file")
    min_sharpness: float = Field(
        default=10, ge=0, description="variance of the Laplacian; 0 lets everything pass"
    )
    brightness: tuple[float, float] = Field(
        default=(0.08, 0.95), description="least and most mean luminance, in [0, 1]"
    )
    max_clipped: float = Field(default=0.7, ge=0, le=1, description="share of black and white pixels")
    max_noise: float = Field(default=20, gt=0, description="standard deviation in 8-bit levels")
    min_jpeg_quality: float = Field(
        default=50, ge=0, le=100, description="as libjpeg counts; 0 lets everything pass"
    )
    max_letters: int = Field(
        default=-1, ge=-1, description="of readable writing that pass; -1: not looked for"
    )
    score_model: str = Field(
        default="", description="a CLIP that scores pictures (CLIP-IQA), open_clip's name or folder"
    )
    min_score: float = Field(default=0.3, ge=0, le=1, description="of CLIP-IQA")
    brisque_model: str = Field(default="", description="a folder with OpenCV's files of BRISQUE; empty: none")
    max_brisque: float = Field(default=50, ge=0, le=100, description="0 is natural, 100 distorted")
    upscale: str = Field(
        default="", description="a Swin2SR, hub id or folder, for small but good pictures; empty: none"
    )
    hosts: tuple[str, ...] = Field(default=(), description="from which an https:// source may be read")
