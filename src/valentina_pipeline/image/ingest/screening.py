"""Screening of one image by its content alone: a function of its bytes, the limits, code and libraries."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from math import ceil
from typing import Any

from PIL import Image

from valentina_pipeline.common.code_fingerprint import fingerprint
from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.domain.rights import RightsRecord
from valentina_pipeline.image.ingest import quality
from valentina_pipeline.image.ingest.iqa import brisque, clip_iqa
from valentina_pipeline.image.ingest.source_image import SourceImage
from valentina_pipeline.image.ingest.upscale import upscaler
from valentina_pipeline.image.io import png
from valentina_pipeline.image.io.decode import RejectedImageError, brief, decode
from valentina_pipeline.image.safety import content_filter

LIBRARIES = (
    "imagehash", "nudenet", "open-clip-torch", "opencv-contrib-python-headless", "pillow", "pillow-heif",
    "rapidocr", "transformers",
)  # fmt: skip
"""Packages whose versions are part of the screening fingerprint."""


@dataclass(frozen=True)
class ScreeningContext:
    """Settings and filters that apply to every image.

    Attributes:
        limits: bytes, pixels, sides, quality and distance between duplicates.
        rights: the concept's rights records.
        today: date on which records are checked for expiry; the last day is still valid.
        unsafe: returns the reason why an image is unsafe, or None; picklable.
    """

    limits: IngestConfig
    rights: tuple[RightsRecord, ...]
    today: date
    unsafe: Callable[[Image.Image], str | None]


@dataclass(frozen=True)
class AcceptedImage:
    """An image that passed screening: its manifest fields, and its PNG."""

    facts: dict[str, Any]
    content: bytes


def screen_image(context: ScreeningContext, source: SourceImage) -> AcceptedImage | RejectedImageError:
    """Decode, measure and filter one image; return it, or the reason for its rejection."""
    limits = context.limits
    try:
        content = read_content(source, limits.max_bytes)
        decoded = decode(content, limits.model_copy(update={"min_side": _min_side(limits)}))
        metrics = quality.measure_quality(
            decoded.image, decoded.tables, read_letters=limits.max_overlay_letters >= 0
        )
        quality.check(metrics, limits)
        if reason := context.unsafe(decoded.image):
            raise RejectedImageError("unsafe content", reason)
        scores = _scores(decoded.image, limits)
    except RejectedImageError as rejection:
        return rejection
    small = min(decoded.image.size) < limits.min_side
    image = upscaler(limits.upscale_model).enlarge(decoded.image) if small else decoded.image
    encoded = png.encode(image)
    facts = {
        "sha256": sha256(encoded),
        "source_sha256": sha256(content),
        "format": decoded.format,
        "width": image.width,
        "height": image.height,
        "bytes": len(content),
        "phash": perceptual_hash(image),
        **asdict(metrics),
        **scores,
        "upscaled": small,
        "notes": "; ".join(decoded.notes),
    }
    return AcceptedImage(facts, encoded)


def screening_fingerprint(context: ScreeningContext) -> str:
    """Return a hash of everything else that an outcome depends on: limits, code and libraries."""
    code = fingerprint(__name__, content_filter.__name__)
    libraries = {name: version(name) for name in LIBRARIES}
    inputs = {
        "limits": context.limits.model_dump(exclude={"num_rendered_images"}),
        "code": code,
        "libraries": libraries,
    }
    return sha256(json.dumps(inputs, sort_keys=True).encode())


def read_content(source: SourceImage, limit: int) -> bytes:
    """Return a file's content.

    Raises:
        RejectedImageError: it cannot be read, or exceeds `limit` bytes.
    """
    try:
        content = source.content()
    except OSError as err:
        raise RejectedImageError("cannot be opened", brief(err)) from err
    if len(content) > limit:
        raise RejectedImageError("too large", f"more than {limit:,} bytes")
    return content


def perceptual_hash(image: Image.Image) -> str:
    """Return the 64-bit perceptual hash as hex; recompression, resizing and relighting change few bits."""
    import imagehash

    return str(imagehash.phash(image))


def _min_side(limits: IngestConfig) -> int:
    return (
        ceil(limits.min_side / upscaler(limits.upscale_model).factor)
        if limits.upscale_model
        else limits.min_side
    )


def _scores(image: Image.Image, limits: IngestConfig) -> dict[str, float | None]:
    """Return the learned scores; None for a model that is not configured."""
    iqa_score = clip_iqa(image, limits.clip_iqa_model) if limits.clip_iqa_model else None
    if iqa_score is not None and iqa_score < limits.min_clip_iqa:
        raise RejectedImageError(
            "looks poor", f"CLIP-IQA {iqa_score:g}, at least {limits.min_clip_iqa:g} is required"
        )
    brisque_score = brisque(image, limits.brisque_model) if limits.brisque_model else None
    if brisque_score is not None and brisque_score > limits.max_brisque:
        raise RejectedImageError(
            "looks poor", f"BRISQUE {brisque_score:g}, at most {limits.max_brisque:g} is required"
        )
    return {"clip_iqa": iqa_score, "brisque": brisque_score}
