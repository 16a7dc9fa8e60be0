"""What becomes of one picture by its content alone: a function of its bytes, limits, code and libraries."""

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
"""Whose versions do, too."""


@dataclass(frozen=True)
class ScreeningContext:
    """What every picture is judged by.

    Attributes:
        limits: bytes, pixels, sides, quality and likeness.
        rights: the concept's records.
        today: decides only whether a record has expired; its last day still counts.
        unsafe: says what makes a picture unsafe, or None; can be pickled.
    """

    limits: IngestConfig
    rights: tuple[RightsRecord, ...]
    today: date
    unsafe: Callable[[Image.Image], str | None]


@dataclass(frozen=True)
class AcceptedImage:
    """A picture that passed all that can be said of it alone: its facts, as in the manifest, and its PNG."""

    facts: dict[str, Any]
    content: bytes


def screen_image(intake: ScreeningContext, original: SourceImage) -> AcceptedImage | RejectedImageError:
    """Return what becomes of one picture by its content alone, whatever the file holds."""
    limits = intake.limits
    try:
        content = read_content(original, limits.max_bytes)
        found = decode(content, limits.model_copy(update={"min_side": _least_side(limits)}))
        figures = quality.measure_quality(found.image, found.tables, read_letters=limits.max_letters >= 0)
        quality.check(figures, limits)
        if reason := intake.unsafe(found.image):
            raise RejectedImageError("unsafe content", reason)
        scores = _scores(found.image, limits)
    except RejectedImageError as rejection:
        return rejection
    small = min(found.image.size) < limits.min_side
    image = upscaler(limits.upscale).enlarge(found.image) if small else found.image
    encoded = png.encode(image)
    facts = {
        "sha256": sha256(encoded),
        "source_sha256": sha256(content),
        "format": found.format,
        "width": image.width,
        "height": image.height,
        "bytes": len(content),
        "phash": perceptual_hash(image),
        **asdict(figures),
        **scores,
        "upscaled": small,
        "notes": "; ".join(found.notes),
    }
    return AcceptedImage(facts, encoded)


def screening_fingerprint(intake: ScreeningContext) -> str:
    """Return a hash of all that an outcome depends on beside the picture: limits, code and libraries."""
    code = fingerprint(__name__, content_filter.__name__)
    libraries = {name: version(name) for name in LIBRARIES}
    about = {"limits": intake.limits.model_dump(exclude={"count"}), "code": code, "libraries": libraries}
    return sha256(json.dumps(about, sort_keys=True).encode())


def read_content(original: SourceImage, limit: int) -> bytes:
    """Return a file's content.

    Raises:
        RejectedImageError: it cannot be read, or has more than `limit` bytes.
    """
    try:
        content = original.content()
    except OSError as err:
        raise RejectedImageError("cannot be opened", brief(err)) from err
    if len(content) > limit:
        raise RejectedImageError("too large", f"more than {limit:,} bytes")
    return content


def perceptual_hash(image: Image.Image) -> str:
    """Return 64 bits that stay close where a picture is encoded again, resized or lit otherwise, as hex."""
    import imagehash

    return str(imagehash.phash(image))


def _least_side(limits: IngestConfig) -> int:
    return ceil(limits.min_side / upscaler(limits.upscale).factor) if limits.upscale else limits.min_side


def _scores(image: Image.Image, limits: IngestConfig) -> dict[str, float | None]:
    """Return the learned scores that are wanted; None of others."""
    good = clip_iqa(image, limits.score_model) if limits.score_model else None
    if good is not None and good < limits.min_score:
        raise RejectedImageError("looks poor", f"CLIP-IQA {good:g}, at least {limits.min_score:g} is wanted")
    distorted = brisque(image, limits.brisque_model) if limits.brisque_model else None
    if distorted is not None and distorted > limits.max_brisque:
        raise RejectedImageError(
            "looks poor", f"BRISQUE {distorted:g}, at most {limits.max_brisque:g} is wanted"
        )
    return {"clip_iqa": good, "brisque": distorted}
