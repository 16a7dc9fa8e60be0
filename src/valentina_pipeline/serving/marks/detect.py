"""Detect marks of a generated image."""

import io
import math
from dataclasses import dataclass

from valentina_pipeline.image.io.png import XMP_KEY
from valentina_pipeline.image.provenance.metadata import MADE
from valentina_pipeline.serving.marks import c2pa


def _worded(manifest: c2pa.Manifest) -> str:
    by = "vouched for" if manifest.trusted else "whom nobody here vouches for"
    state = "unchanged since" if manifest.intact else "but the file was changed since"
    made = MADE.get(manifest.source_type, "does not say how it was made")
    return f"{made}, signed by {manifest.signer!r}, {by}, {state}"


KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}

LARGEST = 100 << 20
"""Bytes of a file that is looked into."""

MOST_PIXELS = 50_000_000
"""Of a picture that is decoded."""


class InvalidImageError(ValueError):
    """A file is not looked into; the message says why."""


@dataclass(frozen=True)
class DetectedMarks:
    """What a file still says.

    Attributes:
        marks: a line each.
        texts: of a PNG, by keyword.
    """

    marks: list[str]
    texts: dict[str, str]


def detect_marks(content: bytes) -> DetectedMarks:
    """Return what a file still says.

    Raises:
        InvalidImageError: it is no PNG, JPEG or WebP, is broken, or has too many pixels.
    """
    from PIL import Image

    from valentina_pipeline.image.provenance.watermark import detect

    try:
        with Image.open(io.BytesIO(content), formats=list(KINDS)) as opened:
            kind, said = KINDS[opened.format or ""], opened.info
            pixels = opened.width * opened.height
            grey = opened.convert("L") if pixels <= MOST_PIXELS else None
    except Exception as err:  # decoders fail in many ways on broken files
        raise InvalidImageError("is no PNG, JPEG or WebP that can be read") from err
    if grey is None:
        raise InvalidImageError(f"has more than {MOST_PIXELS:,} pixels: no image of this project has")
    texts = {str(name): text for name, text in said.items() if isinstance(text, str)}
    xmp = said.get("xmp", b"") or texts.get(XMP_KEY, "")
    lines = []
    if texts.get("synthetic") == "true":
        hashes = ", ".join(
            f"{name} {texts[name]}"
            for name in ("seed", "lora_sha256", "base_sha256")
            if texts.get(name, "").isalnum()
        )
        lines.append(f"PNG text: generated, {hashes}")
    told = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp)
    lines += [f"XMP: {made}" for term, made in MADE.items() if term in told]
    if manifest := c2pa.read(content, kind):
        lines.append(f"C2PA: {_worded(manifest)}")
    trace = detect(grey)
    if trace.found:
        power = math.ceil(math.log10(max(trace.chance, 1e-99)))
        lines.append(f"watermark: found (score {trace.score:.1f}, chance below 1e{power})")
    return DetectedMarks(lines, texts)
