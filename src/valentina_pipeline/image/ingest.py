"""Taking in pictures: every one that is left out has its reason, and nothing hostile gets further.

A picture is bounded before it is decoded, then turned upright, into sRGB and into a PNG without
metadata, whose sha256 is its name from then on.
"""

import hashlib
import io
import json
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from rich.progress import track

from valentina_pipeline.config import IngestConfig
from valentina_pipeline.domain.concept import RightsRecord, record_for
from valentina_pipeline.domain.manifest import HELD_OUT, REJECTION_COLUMNS, TRAIN, held_out, validated
from valentina_pipeline.image import png

logger = logging.getLogger(__name__)

FORMATS = {"JPEG": "JPEG", "MPO": "JPEG", "PNG": "PNG", "WEBP": "WEBP", "TIFF": "TIFF"}
"""Pillow's name -> ours. MPO is what phones write as .jpg: a JPEG with a second picture behind it."""

OPENED = ("JPEG", "PNG", "WEBP", "TIFF", "GIF")
"""What Pillow may try: GIF only to say so (MPO comes through JPEG)."""

LONGEST_DETAIL = 300
"""Characters of an error that the report keeps."""


class NoImages(ValueError):
    """Not one picture was taken in; the message names the most frequent reasons."""


@dataclass(frozen=True)
class Original:
    """A picture as it came.

    Attributes:
        name: a file name, relative to its source.
        content: reads the file, at most one byte more than `max_bytes`.
        attributes: what is known of it: trait -> word.
    """

    name: str
    content: Callable[[], bytes]
    attributes: Mapping[str, str]


@dataclass(frozen=True)
class Accepted:
    """A picture that passed everything that can be said of it alone; its PNG lies at `path`."""

    row: dict[str, Any]
    path: Path


class Rejection(Exception):
    """Why a picture is left out: a reason in fixed words, and what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Stored(Mapping[str, bytes]):
    """PNG contents by name, kept in a temporary folder that goes when this does: they may not fit memory."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ingest-")
        self._names: list[str] = []

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return Path(self._folder.name)

    def keep(self, names: Iterable[str]) -> None:
        """Let these files be the content."""
        self._names = sorted(names)

    def __getitem__(self, name: str) -> bytes:
        if name not in self._names:
            raise KeyError(name)
        return (self.folder / f"{name}.png").read_bytes()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Intake:
    """What every picture is judged by.

    Attributes:
        limits: bytes, pixels, sides and likeness.
        rights: the concept's records.
        today: decides only whether a record has expired; its last day still counts.
        unsafe: says what makes a picture unsafe, or None.
    """

    limits: IngestConfig
    rights: tuple[RightsRecord, ...]
    today: date
    unsafe: Callable[[Image.Image], str | None]


def ingest(
    originals: Sequence[Original], intake: Intake
) -> tuple[Mapping[str, bytes], pd.DataFrame, pd.DataFrame]:
    """Judge every picture.

    Returns:
        PNG content by sha256; the manifest (domain/manifest.py), by source name; the rejections, one row
        a picture left out: source_name, reason, detail.

    Raises:
        NoImages: nothing is left.
    """
    stored = Stored()

    def process(original: Original) -> Accepted | tuple[str, Rejection]:
        try:
            return admit(original, intake, stored.folder)
        except Rejection as rejection:
            return original.name, rejection

    ordered = sorted(originals, key=lambda original: original.name)
    judged = list(map(process, track(ordered, description="ingest", transient=True)))
    accepted, rejected = _without_likenesses(judged, intake.limits.near_duplicate_bits)
    rejections = pd.DataFrame(
        [(name, r.reason, r.detail) for name, r in rejected], columns=list(REJECTION_COLUMNS), dtype=str
    )
    _report(len(accepted), rejections)
    stored.keep(item.row["sha256"] for item in accepted)
    return stored, _manifest(accepted), rejections


def admit(original: Original, intake: Intake, folder: Path) -> Accepted:
    """Check one picture by itself and store it in `folder` as a PNG named by its sha256.

    Raises:
        Rejection: with the reason; nothing else, whatever the file holds.
    """
    record = _record(original.name, intake)
    content = _content(original, intake.limits.max_bytes)
    image, file_format = decode(content, intake.limits)
    if reason := intake.unsafe(image):
        raise Rejection("unsafe content", reason)
    encoded = png.encode(image)
    sha256 = hashlib.sha256(encoded).hexdigest()
    path = folder / f"{sha256}.png"
    path.write_bytes(encoded)
    row = {
        "sha256": sha256,
        "source_name": original.name,
        "source_sha256": hashlib.sha256(content).hexdigest(),
        "format": file_format,
        "width": image.width,
        "height": image.height,
        "bytes": len(content),
        "rights_id": record.id,
        "synthetic": record.synthetic,
        "phash": _phash(image),
        "attributes": json.dumps(dict(original.attributes), sort_keys=True, ensure_ascii=False),
    }
    return Accepted(row, path)


def _record(name: str, intake: Intake) -> RightsRecord:
    valid = tuple(r for r in intake.rights if r.expires is None or r.expires >= intake.today)
    if record := record_for(valid, name, "training"):
        return record
    if expired := record_for(intake.rights, name, "training"):
        raise Rejection("rights expired", f"record {expired.id} ended on {expired.expires}")
    raise Rejection("no rights record", "no record of the concept covers this name for training")


def _content(original: Original, limit: int) -> bytes:
    try:
        content = original.content()
    except OSError as err:
        raise Rejection("cannot be opened", _brief(err)) from err
    if len(content) > limit:
        raise Rejection("too large", f"more than {limit:,} bytes")
    return content


def decode(content: bytes, limits: IngestConfig) -> tuple[Image.Image, str]:
    """Return a file's picture, upright, sRGB, without metadata, and its format.

    Raises:
        Rejection: it is no picture of an allowed format, breaks a limit, or cannot be decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata is dropped anyway; sizes are checked here
        try:
            with _header(content, limits) as opened:
                file_format = FORMATS[str(opened.format)]
                opened.load()
                image = _srgb(ImageOps.exif_transpose(opened))
        except Rejection:
            raise
        except Exception as err:  # decoders fail in many ways on broken files: each is a row, never a crash
            raise Rejection("unreadable", _brief(err)) from err
    image.info = {}
    return image, file_format


def _header(content: bytes, limits: IngestConfig) -> Image.Image:
    """Open without decoding pixels, and check what the header says."""
    try:
        opened = Image.open(io.BytesIO(content), formats=OPENED)
    except Image.DecompressionBombError as err:
        raise Rejection("too many pixels", f"more than {limits.max_pixels:,}") from err
    except UnidentifiedImageError as err:
        raise Rejection("not an image", "no JPEG, PNG, WebP or TIFF") from err
    width, height = opened.size
    if width * height > limits.max_pixels:
        raise Rejection("too many pixels", f"{width} x {height} is more than {limits.max_pixels:,}")
    # a phone's JPEG may carry a depth map or a smaller self behind the picture: only the first is read
    frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
    if frames > 1:
        raise Rejection("animated", f"{frames} frames")
    if opened.format not in FORMATS:
        raise Rejection("format not allowed", f"{opened.format} is none of JPEG, PNG, WebP and TIFF")
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


def _phash(image: Image.Image) -> str:
    import imagehash

    return str(imagehash.phash(image))


def _without_likenesses(
    judged: Sequence[Accepted | tuple[str, Rejection]], bits: int
) -> tuple[list[Accepted], list[tuple[str, Rejection]]]:
    """Leave out pictures that equal, or nearly equal, one before them; rejections in order of names."""
    kept: list[Accepted] = []
    rejected: list[tuple[str, Rejection]] = []
    hashes = np.zeros(len(judged), np.uint64)
    first: dict[str, str] = {}
    for item in judged:
        if not isinstance(item, Accepted):
            rejected.append(item)
            continue
        name, sha256 = item.row["source_name"], item.row["sha256"]
        mine = np.uint64(int(item.row["phash"], 16))
        distances = np.bitwise_count(hashes[: len(kept)] ^ mine)
        if sha256 in first:
            rejected.append((name, Rejection("duplicate", f"the same pixels as {first[sha256]}")))
        elif len(kept) and distances.min() <= bits:
            near = kept[int(distances.argmin())].row["source_name"]
            detail = f"{int(distances.min())} of 64 bits from {near}"
            rejected.append((name, Rejection("near duplicate", detail)))
        else:
            hashes[len(kept)] = mine
            kept.append(item)
            first[sha256] = name
    return kept, rejected


def _manifest(accepted: Sequence[Accepted]) -> pd.DataFrame:
    frame = pd.DataFrame([item.row for item in accepted])
    aside = held_out(frame["sha256"])
    return validated(frame.assign(split=[HELD_OUT if h in aside else TRAIN for h in frame["sha256"]]))


def _report(accepted: int, rejections: pd.DataFrame) -> None:
    for row in rejections.itertuples():
        logger.warning("left out %s: %s (%s)", row.source_name, row.reason, row.detail)
    logger.info("%d images taken in, %d left out", accepted, len(rejections))
    if accepted == 0:
        reasons = Counter(rejections["reason"]).most_common(3)
        said = ", ".join(f"{reason} ({count})" for reason, count in reasons)
        raise NoImages(f"none of {len(rejections)} files was taken in: {said}; each is logged above")


def _brief(err: Exception) -> str:
    said = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    return f"{type(err).__name__}: {said}"[:LONGEST_DETAIL].replace("\n", " ")
