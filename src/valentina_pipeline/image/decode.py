"""A picture out of a file that nobody has looked at yet: bounded, then decoded, upright and in sRGB."""

import io
import warnings
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

FORMATS = {
    "AVIF": "AVIF", "HEIF": "HEIC", "JPEG": "JPEG", "MPO": "JPEG", "PNG": "PNG", "TIFF": "TIFF",
    "WEBP": "WEBP",
}  # fmt: skip
"""Pillow's name -> ours. MPO is what phones write as .jpg: a JPEG with a second picture behind it."""

OPENED = ("JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "GIF")
"""What Pillow may try: GIF only to say so (MPO comes through JPEG)."""

NAMED = "JPEG, PNG, WebP, TIFF, HEIC and AVIF"

LONGEST_DETAIL = 300
"""Characters of an error that the report keeps."""


class Limits(Protocol):
    """What a picture may be; config.py's IngestConfig is one."""

    @property
    def max_pixels(self) -> int:
        """Width times height."""

    @property
    def min_side(self) -> int:
        """Pixels of the shorter side."""


class Rejection(Exception):
    """Why a picture is left out: a reason in fixed words, and what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True)
class Decoded:
    """A picture, and what its file says of how it was packed.

    Attributes:
        image: upright, sRGB, without metadata.
        format: one of FORMATS.
        tables: a JPEG's quantisation tables; {} of other formats.
        texts: a PNG's, those before its pixels.
    """

    image: Image.Image
    format: str
    tables: dict[int, list[int]]
    texts: dict[str, str]


def decode(content: bytes, limits: Limits, formats: tuple[str, ...] = OPENED) -> Decoded:
    """Return a file's picture.

    Args:
        content: of the file.
        limits: what it may be.
        formats: Pillow's names of those that it may have.

    Raises:
        Rejection: it is no picture of an allowed format, breaks a limit, or cannot be decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata is dropped anyway; sizes are checked here
        try:
            with _header(content, limits, formats) as opened:
                file_format = FORMATS[str(opened.format)]
                tables = dict(getattr(opened, "quantization", {}))
                texts = {key: str(text) for key, text in getattr(opened, "text", {}).items()}
                opened.load()
                image = _srgb(ImageOps.exif_transpose(opened))
        except Rejection:
            raise
        except Exception as err:  # decoders fail in many ways on broken files: each is a row, never a crash
            raise Rejection("unreadable", brief(err)) from err
    image.info = {}
    return Decoded(image, file_format, tables, texts)


def _header(content: bytes, limits: Limits, formats: tuple[str, ...]) -> Image.Image:
    """Open without decoding pixels, and check what the header says."""
    if "HEIF" in formats:
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False)
    try:
        opened = Image.open(io.BytesIO(content), formats=formats)
    except Image.DecompressionBombError as err:
        raise Rejection("too many pixels", f"more than {limits.max_pixels:,}") from err
    except UnidentifiedImageError as err:
        named = NAMED if formats is OPENED else ", ".join(formats)
        raise Rejection("not an image", f"none of {named}") from err
    width, height = opened.size
    if width * height > limits.max_pixels:
        raise Rejection("too many pixels", f"{width} x {height} is more than {limits.max_pixels:,}")
    # a phone's JPEG may carry a depth map or a smaller self behind the picture: only the first is read
    frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
    if frames > 1:
        raise Rejection("animated", f"{frames} frames")
    if opened.format not in FORMATS:
        raise Rejection("format not allowed", f"{opened.format} is none of {NAMED}")
    if min(width, height) < limits.min_side:
        raise Rejection("too small", f"{width} x {height}, the shorter side needs {limits.min_side}")
    return opened


def _srgb(image: Image.Image) -> Image.Image:
    """Return 8-bit sRGB: the colour profile applied, transparency on white."""
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise Rejection("unreadable", "floating-point pixels have no defined white")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    elif image.mode in ("P", "1", "LA", "PA"):
        image = image.convert("RGB")
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image.convert("RGB")  # a broken profile says nothing: viewers show the plain values too
    return converted if converted is not None else image.convert("RGB")


def brief(err: Exception) -> str:
    """Return an error in one line of bounded length."""
    said = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    return f"{type(err).__name__}: {said}"[:LONGEST_DETAIL].replace("\n", " ")
