"""A PNG file's chunks: its colors are read from them, and what its picture does not need is left out.

Texts without end, checksums that do not fit and unknown chunks would make Pillow refuse a picture that every
viewer shows. Nothing in them is wanted, so that they are left out before.
"""

import struct
import zlib
from dataclasses import dataclass, field

SIGNATURE = b"\x89PNG\r\n\x1a\n"

WANTED = frozenset({b"tRNS", b"acTL", b"fcTL", b"eXIf"})
"""Ancillary chunks that Pillow gets: transparency, animation, and how the picture is turned."""

TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
TEXT_BYTES, ALL_TEXT_BYTES = 65_536, 1_000_000
"""Of one text and of all texts that are kept, unpacked."""

COLORS = frozenset({b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"})

PROFILE_BYTES = 16 << 20
"""Of a color profile, unpacked; the largest printing profiles have some 4 MB."""


@dataclass
class Chunks:
    """A PNG file, and what it says of its colors.

    Attributes:
        content: the file with only what its picture needs.
        colors: the bodies of the chunks cICP, iCCP, sRGB, gAMA and cHRM that there are, the first of each.
        notes: what was left out and matters, in words.
    """

    content: bytes
    colors: dict[bytes, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_chunks(content: bytes) -> Chunks:
    """Return a PNG file without what its picture does not need; a file cut short stays so."""
    view, found = memoryview(content), Chunks(b"")
    kept: list[bytes | memoryview] = [SIGNATURE]
    at, texts = len(SIGNATURE), 0
    while at < len(content):
        length, kind = struct.unpack_from(">I4s", content, at) if at + 8 <= len(content) else (0, b"IEND")
        end = at + 12 + length
        chunk, body = view[at:end], view[at + 8 : end - 4]
        at = end
        if not kind[0] & 32:  # critical: whether it is whole is for Pillow to say
            kept.append(chunk)
            if kind == b"IEND":
                break
        elif len(chunk) < 12 + length or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            if kind in WANTED | COLORS:
                found.notes.append(f"its chunk {kind.decode()} is damaged and does not count")
        elif kind in COLORS:
            found.colors.setdefault(kind, bytes(body))
        elif kind in WANTED:
            kept.append(chunk)
        elif kind in TEXTS and (size := _text_bytes(kind, bytes(body[:TEXT_BYTES]), length)) <= TEXT_BYTES:
            texts += size
            kept += [chunk] * (texts <= ALL_TEXT_BYTES)
    found.content = b"".join(kept)
    return found


def inflated_profile(body: bytes) -> bytes:
    """Return the profile in the body of a chunk iCCP.

    Raises:
        ValueError: it cannot be unpacked, or has more than PROFILE_BYTES.
    """
    _, _, packed = body.partition(b"\0")
    try:
        profile = zlib.decompressobj().decompress(packed[1:], PROFILE_BYTES + 1)
    except zlib.error as err:
        raise ValueError(f"it cannot be unpacked: {err}") from err
    if len(profile) > PROFILE_BYTES:
        raise ValueError(f"it has more than {PROFILE_BYTES:,} bytes")
    return profile


def _text_bytes(kind: bytes, body: bytes, length: int) -> int:
    """Return how long a text is unpacked, or TEXT_BYTES + 1 where it is longer or cannot be unpacked."""
    if length > TEXT_BYTES:
        return length
    keyword, _, rest = body.partition(b"\0")
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] == b"\0"):
        return length
    packed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    try:
        return len(keyword) + len(zlib.decompressobj().decompress(packed, TEXT_BYTES + 1))
    except zlib.error:
        return TEXT_BYTES + 1
