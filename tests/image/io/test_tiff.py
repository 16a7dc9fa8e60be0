"""A TIFF whose samples cannot be read says which they are; those of 12 and 16 bits keep their levels."""

import struct
from collections.abc import Sequence

import numpy as np
import pytest

from image.ingest.test_ingest import LIMITS, encoded
from portraits import noise
from valentina_pipeline.image.io.decode import Decoded, RejectedImageError, decode

SIDE = 40
GRAY, INVERTED, RGB, CMYK, LAB = 1, 0, 2, 5, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def page(samples: np.ndarray, color: int, number: int, bits: int, start: int, big: bool = False) -> bytes:
    """A page of a TIFF that begins at `start`, uncompressed: its tags, then its pixels."""
    count = samples.shape[2]
    depths, formats = [bits] * count, [number] * count
    tags: list[tuple[int, Sequence[int]]] = [
        (256, [SIDE]), (257, [SIDE]), (258, depths), (259, [1]), (262, [color]), (273, [0]), (277, [count]),
        (278, [SIDE]), (279, [samples.nbytes]), (339, formats),
    ]  # fmt: skip
    if color == CMYK and count > 4:
        tags.insert(-1, (338, [0] * (count - 4)))
    count_form, room, form = ("<Q", 8, "<HHQ") if big else ("<H", 4, "<HHI")
    entry_bytes = struct.calcsize(form) + room
    after = start + struct.calcsize(count_form) + entry_bytes * len(tags) + room
    values = b"".join(struct.pack(f"<{len(v)}I", *v) for _, v in tags if len(v) * 4 > room)
    body, place = struct.pack(count_form, len(tags)), after
    for tag, numbers in tags:
        numbers = [after + len(values)] if tag == 273 else numbers
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        body += struct.pack(form, tag, 4, len(numbers))
        body += packed.ljust(room, b"\0") if len(packed) <= room else place.to_bytes(room, "little")
        place += len(packed) if len(packed) > room else 0
    return body + bytes(room) + values + samples.tobytes()


def tiff(samples: np.ndarray, color: int, number: int, bits: int = 0, big: bool = False) -> bytes:
    head = b"II+\0\x08\0\0\0" + (16).to_bytes(8, "little") if big else b"II*\0" + (8).to_bytes(4, "little")
    return head + page(samples, color, number, bits or samples.itemsize * 8, len(head), big)


def flat(count: int, kind: str, value: float = 0) -> np.ndarray:
    return np.full((SIDE, SIDE, count), value, np.dtype(kind))


def read(content: bytes) -> Decoded:
    return decode(content, LIMITS)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("samples", "color", "number", "said"),
    [
        (flat(3, "<f4"), RGB, FLOAT, "RGB of 3 x 32-bit floating-point samples"),
        (flat(3, "<f2"), RGB, FLOAT, "RGB of 3 x 16-bit floating-point samples"),
        (flat(3, "<f8"), RGB, FLOAT, "RGB of 3 x 64-bit floating-point samples"),
        (flat(4, "<f4"), CMYK, FLOAT, "CMYK of 4 x 32-bit floating-point samples"),
        (flat(3, "<u4"), RGB, UNSIGNED, "RGB of 3 x 32-bit unsigned samples"),
        (flat(3, "<i2"), RGB, SIGNED, "RGB of 3 x 16-bit signed samples"),
        (flat(3, "<u2"), LAB, UNSIGNED, "Lab of 3 x 16-bit unsigned samples"),
        (flat(7, "<u1"), CMYK, UNSIGNED, "CMYK of 7 x 8-bit unsigned samples"),
        (flat(1, "<f4"), GRAY, FLOAT, "gray of 1 x 32-bit floating-point samples"),
        # Pillow opens these as if they were unsigned, or cuts them at the 16th bit
        (flat(1, "<i1"), GRAY, SIGNED, "gray of 1 x 8-bit signed samples"),
        (flat(1, "<i2"), GRAY, SIGNED, "gray of 1 x 16-bit signed samples"),
        (flat(1, "<u4"), GRAY, UNSIGNED, "gray of 1 x 32-bit unsigned samples"),
        (flat(3, "<u1"), 32803, UNSIGNED, "raw sensor of 3 x 8-bit unsigned samples"),
    ],
)
def test_samples_without_a_white_or_a_reader_are_named(
    samples: np.ndarray, color: int, number: int, said: str, big: bool
) -> None:
    with pytest.raises(RejectedImageError) as refused:
        read(tiff(samples, color, number, big=big))
    assert refused.value.reason == "unreadable"
    assert refused.value.detail.startswith(
        f"TIFF: {said}, compression raw; allowed are gray, RGB, CMYK and Lab"
    )
    assert refused.value.detail.endswith("save it as a 16-bit RGB TIFF or PNG")


def test_gray_of_12_and_16_bits_keeps_its_levels() -> None:
    packed = np.frombuffer(bytes([0x80, 0x08, 0x00]) * (SIDE * SIDE // 2), np.uint8)  # 0x800 twice
    assert read(tiff(packed.reshape(1, -1, 1), GRAY, UNSIGNED, 12)).image.getpixel((20, 20)) == (128,) * 3
    for color, level in ((GRAY, 0x40), (INVERTED, 0xBF)):
        found = read(tiff(flat(1, "<u2", 0x4000), color, UNSIGNED)).image
        assert found.getpixel((20, 20)) == (level,) * 3


def test_a_later_page_is_named_by_its_number_and_an_unknown_compression_by_its_own() -> None:
    first = tiff(flat(3, "<u1"), RGB, UNSIGNED)
    # the link to the next page lies behind the first page's tags
    tags = int.from_bytes(first[4:8], "little")
    link = tags + 2 + 12 * int.from_bytes(first[tags : tags + 2], "little")
    both = first[:link] + len(first).to_bytes(4, "little") + first[link + 4 :]
    both += page(flat(3, "<f4"), RGB, FLOAT, 32, len(first))
    with pytest.raises(RejectedImageError, match="TIFF: page 2, RGB of 3 x 32-bit floating-point samples,"):
        read(both)
    for number, said in ((50001, "webp: OSError: decoder error"), (40000, "40000; allowed are gray, RGB")):
        unknown = first.replace(struct.pack("<HHII", 259, 4, 1, 1), struct.pack("<HHII", 259, 4, 1, number))
        with pytest.raises(
            RejectedImageError, match=f"RGB of 3 x 8-bit unsigned samples, compression {said}"
        ):
            read(unknown)


def test_a_jpeg_of_a_kind_that_is_not_read_says_so() -> None:
    whole = encoded(noise(1), "JPEG")
    frame = whole.index(b"\xff\xc0") + 4
    deep = whole[:frame] + bytes([12]) + whole[frame + 1 :]
    with pytest.raises(
        RejectedImageError, match="unreadable: JPEG: SyntaxError: cannot handle 12-bit layers"
    ):
        read(deep)
    with pytest.raises(RejectedImageError, match="not an image: none of JPEG, PNG"):
        read(b"BM" + bytes(100))
