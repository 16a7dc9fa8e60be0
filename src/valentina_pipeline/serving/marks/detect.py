"""Detect the marks of generated images: PNG text, XMP, C2PA manifest and watermark."""

import io
import math
from dataclasses import dataclass

from valentina_pipeline.image.io.png import XMP_KEY
from valentina_pipeline.image.provenance.metadata import MADE
from valentina_pipeline.serving.marks import c2pa


def _describe(manifest: c2pa.Manifest) -> str:
    trust = "trusted" if manifest.trusted else "not trusted on this machine"
    state = "unchanged since" if manifest.intact else "but the file was changed since"
    origin = MADE.get(manifest.source_type, "origin not stated")
    return f"{origin}, signed by {manifest.signer!r}, {trust}, {state}"


KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}

MAX_FILE_BYTES = 100 << 20
"""Limit of a file to check."""

MAX_PIXELS = 50_000_000
"""Limit of an image to decode."""


class InvalidImageError(ValueError):
    """A file cannot be checked; the message has the reason."""


@dataclass(frozen=True)
class DetectedMarks:
    """Marks found in a file.

    Attributes:
        marks: one line per mark.
        texts: the texts of a PNG by keyword.
    """

    marks: list[str]
    texts: dict[str, str]


def detect_marks(content: bytes) -> DetectedMarks:
    """Return the marks found in a file.

    Raises:
        InvalidImageError: the file is not a PNG, JPEG or WebP, is broken, or has too many pixels.
    """
    from PIL import Image

    from valentina_pipeline.image.provenance.watermark import detect

    try:
        with Image.open(io.BytesIO(content), formats=list(KINDS)) as opened:
            kind, info = KINDS[opened.format or ""], opened.info
            pixels = opened.width * opened.height
            gray = opened.convert("L") if pixels <= MAX_PIXELS else None
    except Exception as err:  # decoders fail in many ways on broken files
        raise InvalidImageError("is not a readable PNG, JPEG or WebP") from err
    if gray is None:
        raise InvalidImageError(f"has more than {MAX_PIXELS:,} pixels, more than any image of this project")
    texts = {str(name): text for name, text in info.items() if isinstance(text, str)}
    xmp = info.get("xmp", b"") or texts.get(XMP_KEY, "")
    lines = []
    if texts.get("synthetic") == "true":
        hashes = ", ".join(
            f"{name} {texts[name]}"
            for name in ("seed", "lora_sha256", "base_sha256")
            if texts.get(name, "").isalnum()
        )
        lines.append(f"PNG text: generated, {hashes}")
    xmp_text = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp)
    lines += [f"XMP: {origin}" for term, origin in MADE.items() if term in xmp_text]
    if manifest := c2pa.read(content, kind):
        lines.append(f"C2PA: {_describe(manifest)}")
    trace = detect(gray)
    if trace.found:
        power = math.ceil(math.log10(max(trace.chance, 1e-99)))
        lines.append(f"watermark: found (score {trace.score:.1f}, chance below 1e{power})")
    return DetectedMarks(lines, texts)
