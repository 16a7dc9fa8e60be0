"""Samples of a TIFF's pages: their colors, depths and number formats, from the tags."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2

BITS, COMPRESSION, PHOTOMETRIC, NUM_SAMPLES, SAMPLE_FORMAT = 258, 259, 262, 277, 339
"""Tags of the TIFF 6.0 specification."""

MIN_IS_WHITE = 0
"""Value of PHOTOMETRIC: 0 is white."""

COLORS = {
    0: "gray", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab", 32803: "raw sensor",
    34892: "raw sensor",
}  # fmt: skip

WHOLE = 1
NUMBERS = {WHOLE: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}

MAX_BITS = 16
"""Samples of more bits, and other than whole ones from 0 (black) up, have no defined white."""

BIG_TIFF, BIG_HEADER_BYTES = 43, 16


def read_tags(content: bytes) -> Mapping[int, Any]:
    """Return the tags of the first page; {} if they are unreadable."""
    header_bytes = BIG_HEADER_BYTES if BIG_TIFF in content[2:4] else 8
    try:
        tags = ImageFileDirectory_v2(content[:header_bytes])
        file = io.BytesIO(content)
        file.seek(tags.next or 0)
        tags.load(file)
        return dict(tags)
    except Exception:  # the reader fails in many ways on broken files
        return {}


def describe_samples(tags: Mapping[int, Any]) -> str:
    """Return for example "RGB of 3 x 32-bit floating-point samples, compression raw"."""
    bits, formats = _values(tags, BITS), _values(tags, SAMPLE_FORMAT)
    color = COLORS.get(tags.get(PHOTOMETRIC, MIN_IS_WHITE), "unknown colors")
    numbers = " and ".join(sorted({NUMBERS.get(number, "undefined") for number in formats}))
    depths = " and ".join(f"{depth}-bit" for depth in sorted(set(bits)))
    compression = tags.get(COMPRESSION, 1)
    return (
        f"{color} of {tags.get(NUM_SAMPLES, len(bits))} x {depths} {numbers} samples, "
        f"compression {COMPRESSION_INFO.get(compression, compression)}"
    )


def has_defined_white(tags: Mapping[int, Any]) -> bool:
    """Return True if a page's samples are unsigned and have at most 16 bits: the highest value is white."""
    return {*_values(tags, SAMPLE_FORMAT)} == {WHOLE} and max(_values(tags, BITS)) <= MAX_BITS


def bits_per_sample(tags: Mapping[int, Any]) -> int:
    """Return the bits of the first sample."""
    return _values(tags, BITS)[0]


def _values(tags: Mapping[int, Any], tag: int) -> tuple[int, ...]:
    value = tags.get(tag) or (1,)  # the default of both tags
    return tuple(value) if isinstance(value, Iterable) else (value,)
