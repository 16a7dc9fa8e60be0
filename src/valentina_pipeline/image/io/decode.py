"""A picture out of a file that nobody has looked at yet: bounded, then decoded, upright and in sRGB."""

import io
import struct
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from valentina_pipeline.image.io.color import (
    UnknownColorError,
    adobe_profile,
    chunks_profile,
    coded_profile,
    to_srgb,
)
from valentina_pipeline.image.io.png_chunks import SIGNATURE, Chunks, read_chunks

FORMATS = {
    "AVIF": "AVIF", "HEIF": "HEIC", "JPEG": "JPEG", "MPO": "JPEG", "PNG": "PNG", "TIFF": "TIFF",
    "WEBP": "WEBP",
}  # fmt: skip
"""Pillow's name -> ours. MPO is what phones write as .jpg: a JPEG with a second picture behind it."""

OPENED = ("JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "GIF")
"""What Pillow may try: GIF only to say so (MPO comes through JPEG)."""

NAMED = "JPEG, PNG, WebP, TIFF, HEIC and AVIF"

FIRST_OF_MORE = ("MPO", "HEIF")
"""Formats whose first, or primary, picture is the one: phones put depth maps and smaller selves behind it."""

SMALLER_PAGE, PAGE_KIND, AUXILIARY = 0.5, 254, 5
"""A TIFF's page at most half as wide and high as the largest is its thumbnail, as is one whose tag says that
it is smaller (1) or a mask (4)."""

MOST_PAGES = 100

INTEROPERABILITY, ADOBE_MARK = 0xA005, "R03"
"""EXIF's part in which cameras mark what they saved as Adobe RGB."""

NCLX = b"colrnclx"
"""An AVIF's box of color codes; HEIC's are read by libheif."""

LONGEST_DETAIL = 300
"""Characters of an error that the report keeps."""


class Limits(Protocol):
    """What a picture may be; see IngestConfig is one."""

    @property
    def max_pixels(self) -> int:
        """Width times height."""

    @property
    def min_side(self) -> int:
        """Pixels of the shorter side."""


class RejectedImageError(Exception):
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
        notes: what of the file did not count, or was chosen, in words.
    """

    image: Image.Image
    format: str
    tables: dict[int, list[int]]
    texts: dict[str, str]
    notes: tuple[str, ...] = ()


def decode(
    content: bytes, limits: Limits, formats: tuple[str, ...] = OPENED, behind: str = "white"
) -> Decoded:
    """Return a file's picture.

    Args:
        content: of the file.
        limits: what it may be.
        formats: Pillow's names of those that it may have.
        behind: the color on which what is transparent lies.

    Raises:
        RejectedImageError: it is no picture of an allowed format, breaks a limit, or cannot be decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata is dropped anyway; sizes are checked here
        try:
            return _decoded(content, limits, formats, behind)
        except RejectedImageError:
            raise
        except Exception as err:  # decoders fail in many ways on broken files: each is a row, never a crash
            raise RejectedImageError("unreadable", brief(err)) from err


def _decoded(content: bytes, limits: Limits, formats: tuple[str, ...], behind: str) -> Decoded:
    chunks = read_chunks(content) if content.startswith(SIGNATURE) else Chunks(content)
    with _header(chunks.content, limits, formats) as opened:
        chosen = _chosen(opened, limits)
        file_format = FORMATS[str(opened.format)]
        tables = dict(getattr(opened, "quantization", {}))
        texts = {key: str(text) for key, text in getattr(opened, "text", {}).items()}
        opened.load()
        profile, note = _profile(opened, chunks)
        image, unused = to_srgb(_eight_bits(ImageOps.exif_transpose(opened)), profile, behind)
    image.info = {}
    notes = tuple(said for said in (*chunks.notes, chosen, note, unused) if said)
    return Decoded(image, file_format, tables, texts, notes)


def _header(content: bytes, limits: Limits, formats: tuple[str, ...]) -> Image.Image:
    """Open without decoding pixels, and check what the header says."""
    if "HEIF" in formats:
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False)
    try:
        opened = Image.open(io.BytesIO(content), formats=formats)
    except Image.DecompressionBombError as err:
        raise RejectedImageError("too many pixels", f"more than {limits.max_pixels:,}") from err
    except UnidentifiedImageError as err:
        named = NAMED if formats is OPENED else ", ".join(formats)
        raise RejectedImageError("not an image", f"none of {named}") from err
    _check_size(opened.size, limits, 0 if opened.format == "TIFF" else limits.min_side)
    frames = 1 if opened.format == "TIFF" else getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format not in FIRST_OF_MORE:
        raise RejectedImageError("animated", f"{frames} frames")
    if opened.format not in FORMATS:
        raise RejectedImageError("format not allowed", f"{opened.format} is none of {NAMED}")
    return opened


def _check_size(size: tuple[int, int], limits: Limits, least: int) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise RejectedImageError("too many pixels", f"{width} x {height} is more than {limits.max_pixels:,}")
    if min(size) < least:
        raise RejectedImageError("too small", f"{width} x {height}, the shorter side needs {least}")


def _chosen(opened: Image.Image, limits: Limits) -> str:
    """Go to the one picture of a file that holds more, and say which was chosen, or ""."""
    if opened.format == "TIFF":
        return _chosen_page(opened, limits)
    frames = getattr(opened, "n_frames", 1)
    return f"the main one of its {frames} pictures is taken" if frames > 1 else ""


def _chosen_page(opened: Image.Image, limits: Limits) -> str:
    """Go to the one page of a TIFF that is a picture, and say which, or "".

    Raises:
        RejectedImageError: several pages are, or it breaks a limit.
    """
    pages = []
    with suppress(EOFError):
        for page in range(MOST_PAGES):
            opened.seek(page)
            full = int(getattr(opened, "tag_v2", {}).get(PAGE_KIND, 0)) & AUXILIARY == 0
            pages.append((full, opened.width * opened.height, -page, opened.size))
    _, _, back, (width, height) = max(pages)
    whole = [w > SMALLER_PAGE * width or h > SMALLER_PAGE * height for full, _, _, (w, h) in pages if full]
    if sum(whole) > 1 or len(pages) == MOST_PAGES:
        raise RejectedImageError("several pictures", f"{len(pages)} pages: save each as a file of its own")
    _check_size((width, height), limits, limits.min_side)
    opened.seek(-back)
    return f"page {1 - back} of {len(pages)} is taken, the others are smaller" if len(pages) > 1 else ""


def _profile(opened: Image.Image, chunks: Chunks) -> tuple[bytes | None, str]:
    """Return the profile of a file's colors, None where it says sRGB or nothing, and a note or "".

    Raises:
        RejectedImageError: the colors are for screens with a high dynamic range.
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
        return None, f"what it says of its colors does not count, plain values do: {err}"
    with suppress(Exception):  # broken EXIF fails in many ways, and then says nothing
        if opened.getexif().get_ifd(INTEROPERABILITY).get(1) == ADOBE_MARK:
            return adobe_profile(), ""
    return None, ""


def _codes(opened: Image.Image, content: bytes) -> dict[str, int] | None:
    """Return an AVIF's color codes: Pillow does not say them."""
    at = content.find(NCLX, 0, content.find(b"mdat")) if opened.format == "AVIF" else -1
    if at < 0:
        return None
    primaries, transfer = struct.unpack_from(">HH", content, at + len(NCLX))
    return {"color_primaries": primaries, "transfer_characteristics": transfer}


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return grey of 16 bits in 8, its transparent value as alpha; other pictures as they are."""
    if image.mode == "F":
        raise RejectedImageError("unreadable", "floating-point pixels have no defined white")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def brief(err: Exception) -> str:
    """Return an error in one line of bounded length."""
    said = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    return f"{type(err).__name__}: {said}"[:LONGEST_DETAIL].replace("\n", " ")
