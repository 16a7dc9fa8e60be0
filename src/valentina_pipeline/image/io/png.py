"""PNG files whose bytes depend only on the pixels and the text metadata."""

import io

from PIL import Image, PngImagePlugin

XMP_KEY = "XML:com.adobe.xmp"
"""PNG keyword for XMP; readers expect it in an iTXt chunk."""


RLE_MIN_PIXELS = 4_000_000
"""Pixels from which run-length compression is used: photographs are as small in a quarter of the time."""

Z_RLE = 3
"""zlib's constant for run-length compression."""


def encode(image: Image.Image) -> bytes:
    """Return `image` as PNG, with the texts of `image.info["text"]` (a mapping) as text chunks.

    The same pixels and texts always give the same bytes: no time, no color profile, sorted texts.
    """
    chunks = PngImagePlugin.PngInfo()
    for key, text in sorted(image.info.get("text", {}).items()):
        if key == XMP_KEY:
            chunks.add_itxt(key, str(text))
        else:
            chunks.add_text(key, str(text))  # Pillow uses iTXt where Latin-1 is not enough
    buffer = io.BytesIO()
    large = image.width * image.height >= RLE_MIN_PIXELS
    compress = {"compress_type": Z_RLE} if large else {}
    image.save(buffer, format="PNG", pnginfo=chunks, icc_profile=None, **compress)
    return buffer.getvalue()


def decode(content: bytes) -> Image.Image:
    """Return a PNG as an RGB image with its texts in `info["text"]`.

    Raises:
        OSError: the bytes are not a PNG, or truncated.
    """
    with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
        opened.load()
        image = opened.convert("RGB")
        texts = {key: str(text) for key, text in getattr(opened, "text", {}).items()}
    image.info = {"text": texts} if texts else {}
    return image
