"""PNG chunks: read the color information, and drop chunks that the image does not need.

Pillow rejects images with oversized texts, wrong checksums or unknown chunks, although every viewer shows
them. Such chunks are dropped before decoding.
"""

import struct
import zlib
from dataclasses import dataclass, field

SIGNATURE = b"\x89PNG\r\n\x1a\n"

KEPT_CHUNKS = frozenset({b"tRNS", b"acTL", b"fcTL", b"eXIf"})
"""Ancillary chunks that are passed to Pillow: transparency, animation and EXIF orientation."""

TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
MAX_TEXT_BYTES, MAX_ALL_TEXT_BYTES = 65_536, 1_000_000
"""Uncompressed size limits of one text and of all texts."""

COLOR_CHUNKS = frozenset({b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"})

PROFILE_BYTES = 16 << 20
"""Uncompressed size limit of a color profile; the largest printing profiles have about 4 MB."""


@dataclass
class Chunks:
    """A filtered PNG file and its color information.

    Attributes:
        content: the file with only the necessary chunks.
        colors: bodies of the chunks cICP, iCCP, sRGB, gAMA and cHRM, the first of each.
        notes: messages on relevant chunks that were dropped.
    """

    content: bytes
    colors: dict[bytes, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_chunks(content: bytes) -> Chunks:
    """Return a PNG file without unnecessary chunks; a truncated file stays truncated."""
    view, found = memoryview(content), Chunks(b"")
    kept: list[bytes | memoryview] = [SIGNATURE]
    start, texts = len(SIGNATURE), 0
    while start < len(content):
        complete = start + 8 <= len(content)
        length, kind = struct.unpack_from(">I4s", content, start) if complete else (0, b"IEND")
        end = start + 12 + length
        chunk, body = view[start:end], view[start + 8 : end - 4]
        start = end
        if not kind[0] & 32:  # critical chunk: Pillow checks it
            kept.append(chunk)
            if kind == b"IEND":
                break
        elif len(chunk) < 12 + length or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            if kind in KEPT_CHUNKS | COLOR_CHUNKS:
                found.notes.append(f"its chunk {kind.decode()} is damaged and was ignored")
        elif kind in COLOR_CHUNKS:
            found.colors.setdefault(kind, bytes(body))
        elif kind in KEPT_CHUNKS:
            kept.append(chunk)
        elif kind in TEXT_CHUNKS:
            size = _text_bytes(kind, bytes(body[:MAX_TEXT_BYTES]), length)
            if size <= MAX_TEXT_BYTES:
                texts += size
                kept += [chunk] * (texts <= MAX_ALL_TEXT_BYTES)
    found.content = b"".join(kept)
    return found


def inflated_profile(body: bytes) -> bytes:
    """Return the profile in the body of an iCCP chunk.

    Raises:
        ValueError: it cannot be decompressed, or exceeds PROFILE_BYTES.
    """
    _, _, packed = body.partition(b"\0")
    try:
        profile = zlib.decompressobj().decompress(packed[1:], PROFILE_BYTES + 1)
    except zlib.error as err:
        raise ValueError(f"it cannot be decompressed: {err}") from err
    if len(profile) > PROFILE_BYTES:
        raise ValueError(f"it exceeds {PROFILE_BYTES:,} bytes")
    return profile


def _text_bytes(kind: bytes, body: bytes, length: int) -> int:
    """Return the uncompressed length of a text; MAX_TEXT_BYTES + 1 if longer or not decompressible."""
    if length > MAX_TEXT_BYTES:
        return length
    keyword, _, rest = body.partition(b"\0")
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] == b"\0"):
        return length
    packed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    try:
        return len(keyword) + len(zlib.decompressobj().decompress(packed, MAX_TEXT_BYTES + 1))
    except zlib.error:
        return MAX_TEXT_BYTES + 1
