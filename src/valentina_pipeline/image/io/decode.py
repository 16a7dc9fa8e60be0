"""Decoding of untrusted image files: check limits, decode, rotate upright, convert to sRGB."""

import io
import struct
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from valentina_pipeline.image.io.color import (
    UnknownColorError,
    adobe_profile,
    chunks_profile,
    coded_profile,
    to_srgb,
)
from valentina_pipeline.image.io.png_chunks import SIGNATURE, Chunks, read_chunks
from valentina_pipeline.image.io.tiff import (
    MIN_IS_WHITE,
    PHOTOMETRIC,
    bits_per_sample,
    describe_samples,
    has_defined_white,
    read_tags,
)

FORMATS = {
    "AVIF": "AVIF", "HEIF": "HEIC", "JPEG": "JPEG", "MPO": "JPEG", "PNG": "PNG", "TIFF": "TIFF",
    "WEBP": "WEBP",
}  # fmt: skip
"""Pillow's format name -> ours. Phones write MPO as .jpg: a JPEG followed by a second image."""

OPENED = ("JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "GIF")
"""Formats that Pillow may open: GIF only for its error message; MPO is opened as JPEG."""

NAMED = "JPEG, PNG, WebP, TIFF, HEIC and AVIF"

MULTI_IMAGE_FORMATS = ("MPO", "HEIF")
"""Formats of which the first or primary image is used: phones append depth maps and thumbnails."""

THUMBNAIL_SHARE, PAGE_KIND, AUXILIARY = 0.5, 254, 5
"""A TIFF page at most half as wide and high as the largest is a thumbnail, and so is one whose tag marks it
as reduced (1) or as a mask (4)."""

MAX_PAGES = 100

INTEROPERABILITY, ADOBE_MARK = 0xA005, "R03"
"""EXIF directory, and its value, by which cameras mark Adobe RGB."""

NCLX = b"colrnclx"
"""AVIF's box of color codes; libheif reads those of HEIC."""

MAX_DETAIL_CHARS = 300
"""Maximum length of an error message in the report."""


class Limits(Protocol):
    """Limits of an image, for example an IngestConfig."""

    @property
    def max_pixels(self) -> int:
        """Maximum of width times height."""

    @property
    def min_side(self) -> int:
        """Minimum of the shorter side in pixels."""


class RejectedImageError(Exception):
    """An image is rejected: `reason` is a fixed phrase, `detail` gives the values."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True)
class Decoded:
    """A decoded image with information on its file.

    Attributes:
        image: upright, sRGB, without metadata.
        format: one of FORMATS.
        tables: a JPEG's quantization tables; {} for other formats.
        texts: text chunks of a PNG before its pixels.
        notes: messages on ignored parts of the file and on the selected page.
    """

    image: Image.Image
    format: str
    tables: dict[int, list[int]]
    texts: dict[str, str]
    notes: tuple[str, ...] = ()


def decode(
    content: bytes, limits: Limits, formats: tuple[str, ...] = OPENED, behind: str = "white"
) -> Decoded:
    """Return the image of a file.

    Args:
        content: content of the file.
        limits: limits of the image.
        formats: Pillow's names of the allowed formats.
        behind: background color for transparent pixels.

    Raises:
        RejectedImageError: it is not an image of an allowed format, exceeds a limit, or cannot be decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # metadata is dropped anyway; sizes are checked here
        try:
            return _decode(content, limits, formats, behind)
        except RejectedImageError:
            raise
        except Exception as err:  # decoders fail in many ways: reject the file, never crash
            raise RejectedImageError("unreadable", brief(err)) from err


def _decode(content: bytes, limits: Limits, formats: tuple[str, ...], behind: str) -> Decoded:
    chunks = read_chunks(content) if content.startswith(SIGNATURE) else Chunks(content)
    with _open(chunks.content, limits, formats) as opened:
        page_note = _select_image(opened, limits)
        file_format = FORMATS[str(opened.format)]
        tables = dict(getattr(opened, "quantization", {}))
        texts = {key: str(text) for key, text in getattr(opened, "text", {}).items()}
        tags = opened.tag_v2 if isinstance(opened, TiffImageFile) else {}
        try:
            opened.load()
        except OSError as err:
            content_kind = f"TIFF: {describe_samples(tags)}: " if tags else ""
            raise RejectedImageError("unreadable", content_kind + brief(err)) from err
        profile, note = _profile(opened, chunks)
        upright = _eight_bits(ImageOps.exif_transpose(opened), tags)
        image, unused = to_srgb(upright, profile, behind)
    image.info = {}
    notes = tuple(text for text in (*chunks.notes, page_note, note, unused) if text)
    return Decoded(image, file_format, tables, texts, notes)


def _open(content: bytes, limits: Limits, formats: tuple[str, ...]) -> Image.Image:
    """Open a file without decoding its pixels, and check its header against the limits."""
    if "HEIF" in formats:
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False)
    try:
        opened = Image.open(io.BytesIO(content), formats=formats)
    except Image.DecompressionBombError as err:
        raise RejectedImageError("too many pixels", f"more than {limits.max_pixels:,}") from err
    except UnidentifiedImageError as err:
        raise _explain(content, formats) from err
    _check_size(opened.size, limits, 0 if opened.format == "TIFF" else limits.min_side)
    frames = 1 if opened.format == "TIFF" else getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format not in MULTI_IMAGE_FORMATS:
        raise RejectedImageError("animated", f"{frames} frames")
    if opened.format not in FORMATS:
        raise RejectedImageError("format not allowed", f"{opened.format}, allowed are {NAMED}")
    return opened


def _explain(content: bytes, formats: tuple[str, ...]) -> RejectedImageError:
    """Return the reason why Pillow opens a file with none of the formats."""
    for name in formats:
        open_image, accepts = Image.OPEN[name]
        if accepts is None or accepts(content[:16]) is not True:
            continue
        try:
            open_image(io.BytesIO(content), "")
        except Exception as err:  # a broken file of this format, or a variant of it
            if name == "TIFF" and PHOTOMETRIC in (tags := read_tags(content)):
                return _unsupported_samples(tags)
            return RejectedImageError("unreadable", f"{FORMATS.get(name, name)}: {brief(err)}")
    allowed = NAMED if formats is OPENED else ", ".join(formats)
    return RejectedImageError("not an image", f"none of {allowed}")


def _unsupported_samples(tags: Mapping[int, Any], page: str = "") -> RejectedImageError:
    return RejectedImageError(
        "unreadable",
        f"TIFF: {page}{describe_samples(tags)}; allowed are gray, RGB, CMYK and Lab with unsigned samples of "
        "8 bits, gray, RGB and CMYK also of 16, and common compressions: save it as a 16-bit RGB TIFF or PNG",
    )


def _check_size(size: tuple[int, int], limits: Limits, min_side: int) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise RejectedImageError("too many pixels", f"{width} x {height} is more than {limits.max_pixels:,}")
    if min(size) < min_side:
        raise RejectedImageError("too small", f"{width} x {height}, the shorter side needs {min_side}")


def _select_image(opened: Image.Image, limits: Limits) -> str:
    """Seek the main image of a file with several, and return a note on the selection, or ""."""
    if isinstance(opened, TiffImageFile):
        return _select_page(opened, limits)
    frames = getattr(opened, "n_frames", 1)
    return f"the main one of its {frames} images is used" if frames > 1 else ""


def _select_page(opened: TiffImageFile, limits: Limits) -> str:
    """Seek the only full-size page of a TIFF, and return a note on the selection, or "".

    Raises:
        RejectedImageError: several pages have full size, or the page exceeds a limit.
    """
    pages = []
    with suppress(EOFError):
        for page in range(MAX_PAGES):
            try:
                opened.seek(page)
            except SyntaxError as err:
                raise _unsupported_samples(opened.tag_v2, f"page {page + 1}, ") from err
            full = int(opened.tag_v2.get(PAGE_KIND, 0)) & AUXILIARY == 0
            pages.append((full, opened.width * opened.height, -page, opened.size))
    _, _, negative_page, (width, height) = max(pages)
    min_width, min_height = THUMBNAIL_SHARE * width, THUMBNAIL_SHARE * height
    whole = [w > min_width or h > min_height for full, _, _, (w, h) in pages if full]
    if sum(whole) > 1 or len(pages) == MAX_PAGES:
        raise RejectedImageError("several pictures", f"{len(pages)} pages: save each as a separate file")
    _check_size((width, height), limits, limits.min_side)
    opened.seek(-negative_page)
    if not has_defined_white(opened.tag_v2):
        raise _unsupported_samples(opened.tag_v2)
    note = f"page {1 - negative_page} of {len(pages)} is used, the others are smaller"
    return note if len(pages) > 1 else ""


def _profile(opened: Image.Image, chunks: Chunks) -> tuple[bytes | None, str]:
    """Return the color profile of a file, None for sRGB or if unspecified, and a note or "".

    Raises:
        RejectedImageError: the image has a high dynamic range.
    """
    info = opened.info
    try:
        if opened.format == "PNG":
            return chunks_profile(chunks.colors), ""
        if profile := info.get("icc_profile"):
            return profile, ""
        if codes := info.get("nclx_profile") or _codes(opened, chunks.content):
            return coded_profile(codes["color_primaries"], codes["transfer_characteristics"]), ""
    except UnknownColorError as err:
        raise RejectedImageError("unreadable", str(err)) from err
    except (ValueError, TypeError, KeyError, struct.error) as err:
        return None, f"its color information was ignored: {err}"
    with suppress(Exception):  # broken EXIF fails in many ways: ignore it
        if opened.getexif().get_ifd(INTEROPERABILITY).get(1) == ADOBE_MARK:
            return adobe_profile(), ""
    return None, ""


def _codes(opened: Image.Image, content: bytes) -> dict[str, int] | None:
    """Return an AVIF's color codes, which Pillow does not expose."""
    position = content.find(NCLX, 0, content.find(b"mdat")) if opened.format == "AVIF" else -1
    if position < 0:
        return None
    primaries, transfer = struct.unpack_from(">HH", content, position + len(NCLX))
    return {"color_primaries": primaries, "transfer_characteristics": transfer}


def _eight_bits(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Convert 12- and 16-bit gray to 8 bits, with its transparent value as alpha; return others unchanged.

    Args:
        image: decoded image; Pillow inverts a TIFF whose 0 is white if it has 8 bits, but not 16.
        tags: tags of a TIFF; {} for other formats.
    """
    if not image.mode.startswith("I"):
        return image
    bits = bits_per_sample(tags) if tags else 16
    values = np.asarray(image).astype(np.int64).clip(0, 2**bits - 1)
    levels = 2**bits - 1 - values if tags.get(PHOTOMETRIC) == MIN_IS_WHITE else values
    gray = Image.fromarray((levels >> (bits - 8)).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        gray.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return gray


def brief(err: Exception) -> str:
    """Return an error message as one line of limited length."""
    message = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    return f"{type(err).__name__}: {message}"[:MAX_DETAIL_CHARS].replace("\n", " ")
