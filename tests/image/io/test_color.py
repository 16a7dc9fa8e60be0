"""Colors are judged by what a file says in numbers, whatever its format, depth and transparency."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from image.ingest.test_ingest import LIMITS, encoded, intake, original
from image.ingest.test_ingest import ingest as taken_in
from portraits import noise
from valentina_pipeline.image.io.color import ADOBE_RGB, CURVES, PRIMARIES, adobe_profile, matrix_profile
from valentina_pipeline.image.io.decode import Decoded, RejectedImageError, decode
from valentina_pipeline.image.io.png_chunks import PROFILE_BYTES

SKIN = (180, 120, 100)
FLAT = Image.new("RGB", (40, 40), SKIN)
P3 = matrix_profile(PRIMARIES[12], CURVES[13])
LINEAR = matrix_profile(PRIMARIES[1], lambda v: v)


def read(content: bytes) -> Decoded:
    return decode(content, LIMITS)


def middle(content: bytes) -> tuple[int, ...]:
    return read(content).image.getpixel((20, 20))


def near(found: tuple[int, ...], wanted: tuple[int, ...], by: int = 2) -> bool:
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= by


def png(depth: int, kind: int, row: bytes, *chunks: tuple[bytes, bytes], broken: bytes = b"") -> bytes:
    """A PNG of 40 x 40 pixels of one color; the checksum of the chunks called `broken` is wrong."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 40, 40, depth, kind, 0, 0, 0)),
        *chunks,
        (b"IDAT", zlib.compress((b"\0" + row * 40) * 40)),
        (b"IEND", b""),
    ]
    body = b"\x89PNG\r\n\x1a\n"
    for name, data in parts:
        check = zlib.crc32(name + data) ^ (name == broken)
        body += struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)
    return body


def rgb(*chunks: tuple[bytes, bytes], broken: bytes = b"") -> bytes:
    return png(8, 2, bytes(SKIN), *chunks, broken=broken)


def gray_profile(gamma: float) -> bytes:
    """An ICC profile of gray with this gamma."""
    rgb_profile = matrix_profile(PRIMARIES[1], lambda v: v**gamma)
    # the same curve, under the name that gray has for it
    return rgb_profile.replace(b"mntrRGB XYZ ", b"mntrGRAYXYZ ").replace(b"rTRC", b"kTRC", 1)


def cmyk_profile() -> bytes:
    """An ICC profile of inks by which cyan prints as red: only its content tells."""
    grid = []
    for node in range(16):
        cyan, magenta, yellow, black = ((node >> bit) & 1 for bit in (3, 2, 1, 0))
        light = (1 - black) * (1 - (cyan + magenta + yellow) / 3)
        grid.append((round(255 * light), 128 + 90 * cyan, 128 + 60 * cyan))
    table = (
        b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    )
    table += bytes(range(256)) * 4 + bytes(v for point in grid for v in point) + bytes(range(256)) * 3
    bodies = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"inks\0" + bytes(81),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
        b"A2B0": table,
    }
    index, data = struct.pack(">I", len(bodies)), b""
    for name, body in bodies.items():
        index += name + struct.pack(">II", 132 + 12 * len(bodies) + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    head = struct.pack(">I", 128 + len(index) + len(data)) + bytes(4) + b"\x02\x40\0\0prtrCMYKLab "
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    return head + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + index + data


@pytest.mark.parametrize("name", ["display p3", "sRGB IEC61966-2.1"])
@pytest.mark.parametrize(
    ("mode", "file_format", "options"),
    [
        ("RGB", "PNG", {}), ("RGBA", "PNG", {}), ("P", "PNG", {}), ("P", "PNG", {"transparency": 7}),
        ("RGB", "TIFF", {}), ("RGBA", "TIFF", {}), ("RGBA", "WEBP", {"lossless": True}),
        ("RGB", "JPEG", {"quality": 98}), ("RGB", "AVIF", {"quality": 98}), ("RGBA", "AVIF", {"quality": 98}),
        ("RGB", "HEIF", {"quality": 98}),
    ],
)  # fmt: skip
def test_a_wide_profile_counts_in_every_format_whatever_its_name(
    mode: str, file_format: str, options: dict[str, Any], name: str
) -> None:
    pillow_heif.register_heif_opener()
    profile = P3.replace(b"by code", name.encode()[:7])
    image = FLAT.quantize(8) if mode == "P" else FLAT.convert(mode)
    content = encoded(image, file_format, icc_profile=profile, **options)
    assert near(middle(content), (191, 117, 96))


def test_linear_light_and_adobe_rgb_become_srgb() -> None:
    assert near(
        middle(encoded(Image.new("RGB", (40, 40), (100, 60, 40)), "PNG", icc_profile=LINEAR)), (168, 133, 110)
    )
    adobe = encoded(FLAT, "PNG", icc_profile=adobe_profile())
    assert near(middle(adobe), (199, 121, 99))
    entries = ((0x8769, 4, 1, 26), (0xA005, 4, 1, 44), (1, 2, 4, int.from_bytes(b"R03", "little")))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + b"".join(struct.pack("<HHHIII", 1, *entry, 0) for entry in entries)
    assert near(middle(encoded(FLAT, "JPEG", quality=98, exif=exif)), (199, 121, 99))


def test_the_profile_comes_before_the_white_below() -> None:
    half = Image.new("RGBA", (40, 40), (*SKIN, 128))
    red, green, blue = (round((v * 128 + 255 * 127) / 255) for v in (191, 117, 96))
    assert near(middle(encoded(half, "PNG", icc_profile=P3)), (red, green, blue))


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_gray_has_its_profile_too_with_sixteen_bits_and_with_transparency(mode: str) -> None:
    values = np.full((40, 40), 100, np.uint8)
    image = Image.fromarray(values.astype(np.uint16) * 257 if mode == "I;16" else values)
    content = encoded(image.convert("LA") if mode == "LA" else image, "PNG", icc_profile=gray_profile(1.0))
    assert near(middle(content), (168,) * 3)
    assert near(middle(encoded(image, "TIFF", icc_profile=gray_profile(1.0))), (168,) * 3) or mode == "LA"


def test_the_transparent_value_of_sixteen_bit_gray_is_white() -> None:
    content = png(16, 0, struct.pack(">H", 40_000), (b"tRNS", struct.pack(">H", 40_000)))
    assert middle(content) == (255, 255, 255)
    assert near(middle(png(16, 0, struct.pack(">H", 40_000))), (156,) * 3, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_whose_zero_is_white_is_no_negative(dtype: type) -> None:
    whole = np.iinfo(dtype).max // 255
    image = Image.fromarray(np.full((40, 40), 100 * whole, dtype))
    stored = 155 if dtype is np.uint8 else 100  # Pillow inverts 8 bits while it writes
    assert middle(encoded(image, "TIFF", tiffinfo={262: 0})) == (255 - stored,) * 3


def test_sixteen_bits_with_alpha_have_their_profile() -> None:
    row = struct.pack(">HHHH", *(v * 257 for v in SKIN), 65535)
    assert near(middle(png(16, 6, row, (b"iCCP", b"p\0\0" + zlib.compress(P3)))), (191, 117, 96))


def test_inks_and_lab_become_rgb_by_what_they_mean() -> None:
    cyan = Image.new("CMYK", (40, 40), (255, 0, 0, 0))
    red, green, _ = middle(encoded(cyan, "TIFF", icc_profile=cmyk_profile()))
    assert red > green + 60 and middle(encoded(cyan, "TIFF"))[0] < 20
    lab = ImageCms.profileToProfile(
        FLAT, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None and near(middle(encoded(lab, "TIFF")), SKIN)


@pytest.mark.parametrize(
    ("chunks", "wanted"),
    [
        ([(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))], SKIN),
        ([(b"gAMA", struct.pack(">I", 45_455))], SKIN),
        ([(b"gAMA", struct.pack(">I", 100_000))], (218, 182, 168)),
        ([(b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in PRIMARIES[12])))], (191, 117, 96)),
        ([(b"cICP", bytes((12, 13, 0, 1))), (b"sRGB", b"\0")], (191, 117, 96)),
        ([(b"cICP", bytes((1, 13, 0, 1))), (b"iCCP", b"p\0\0" + zlib.compress(P3))], SKIN),
    ],
)
def test_a_png_says_its_colors_in_chunks(chunks: list[tuple[bytes, bytes]], wanted: tuple[int, ...]) -> None:
    assert near(middle(rgb(*chunks)), wanted)


def test_codes_of_a_heic_and_an_avif_count_and_high_dynamic_range_is_a_reason() -> None:
    pillow_heif.register_heif_opener()
    codes = {
        "color_primaries": 12,
        "transfer_characteristics": 13,
        "matrix_coefficients": 6,
        "full_range_flag": 1,
    }
    assert near(middle(encoded(FLAT, "HEIF", quality=98, **codes)), (191, 117, 96), 3)
    avif = encoded(FLAT, "AVIF", quality=98)
    at = avif.index(b"colrnclx") + 8
    assert near(middle(avif), SKIN)
    assert near(middle(avif[:at] + struct.pack(">HH", 12, 13) + avif[at + 4 :]), (191, 117, 96), 3)
    for bright in (
        rgb((b"cICP", bytes((9, 16, 0, 1)))),
        avif[:at] + struct.pack(">HH", 9, 16) + avif[at + 4 :],
    ):
        with pytest.raises(RejectedImageError, match="high dynamic range"):
            read(bright)


def test_colors_that_are_srgb_but_for_rounding_keep_every_value() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, matrix_profile(PRIMARIES[1], CURVES[13])):
        found = read(encoded(noise(1), "PNG", icc_profile=profile))
        assert np.array_equal(np.asarray(found.image), np.asarray(noise(1))) and found.notes == ()


@pytest.mark.parametrize(
    "profile",
    [b"no profile", P3[:200], P3[:128] + b"\xff" * 900, bytes(500), gray_profile(2.2), cmyk_profile()],
)
def test_a_profile_that_is_no_good_leaves_the_values_and_a_note(profile: bytes) -> None:
    found = read(encoded(noise(1), "PNG", icc_profile=profile))
    assert np.array_equal(np.asarray(found.image), np.asarray(noise(1)))
    assert [note.partition(":")[0] for note in found.notes] == ["its color profile was ignored"]


def test_a_profile_that_unpacks_without_end_is_bounded() -> None:
    bomb = b"p\0\0" + zlib.compress(P3 + bytes(PROFILE_BYTES))
    assert len(bomb) < 100_000
    found = read(rgb((b"iCCP", bomb)))
    assert found.image.getpixel((5, 5)) == SKIN and "16,777,216 bytes" in found.notes[0]
    padded = zlib.compress(P3 + bytes(1_200_000))
    assert near(middle(rgb((b"iCCP", b"p\0\0" + padded))), (191, 117, 96))


def test_primaries_that_are_no_colors_are_a_note() -> None:
    found = read(rgb((b"cHRM", bytes(32))))
    assert found.image.getpixel((5, 5)) == SKIN and "its primaries are invalid" in found.notes[0]
    with pytest.raises(ValueError, match="primaries are invalid"):
        matrix_profile((*ADOBE_RGB[:2], *[0.3, 0.3] * 3), lambda v: v)


WORKFLOW = b"x" * 1_200_000


@pytest.mark.parametrize(
    "chunk",
    [
        (b"tEXt", b"workflow\0" + WORKFLOW),
        (b"zTXt", b"workflow\0\0" + zlib.compress(WORKFLOW)),
        (b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(WORKFLOW)),
        (b"iTXt", b"workflow\0\0\0\0\0" + WORKFLOW),
        (b"zTXt", b"workflow\0\0no zlib"),
        (b"prVt", b"anything"),
        (b"tIME", b"\0"),
        (b"sRGB", b""),
    ],
)
def test_a_png_is_read_whatever_lies_beside_its_pixels(chunk: tuple[bytes, bytes]) -> None:
    for content in (rgb(chunk), rgb(chunk, broken=chunk[0])):
        found = read(content)
        assert found.image.getpixel((5, 5)) == SKIN and "workflow" not in found.texts


def test_a_damaged_chunk_that_matters_is_a_note_and_damaged_pixels_are_a_reason() -> None:
    found = read(rgb((b"iCCP", b"p\0\0" + zlib.compress(P3)), broken=b"iCCP"))
    assert found.image.getpixel((5, 5)) == SKIN
    assert found.notes == ("its chunk iCCP is damaged and was ignored",)
    with pytest.raises(RejectedImageError, match="unreadable: PNG: SyntaxError: broken PNG file"):
        read(rgb(broken=b"IHDR"))
    with pytest.raises(RejectedImageError, match="unreadable"):
        read(rgb().replace(zlib.compress((b"\0" + bytes(SKIN) * 40) * 40), b"no pixels"))


def test_short_texts_are_read_and_all_of_them_are_bounded() -> None:
    many = [(b"tEXt", b"key%d\0" % number + b"x" * 60_000) for number in range(30)]
    texts = read(rgb((b"tEXt", b"seed\0" + b"7"), *many)).texts
    assert texts["seed"] == "7" and sum(map(len, texts.values())) <= 1_000_000


def pages(file_format: str, *sizes: int, **options: Any) -> bytes:
    first, *others = (noise(size, size, size) for size in sizes)
    buffer = io.BytesIO()
    first.save(buffer, file_format, save_all=True, append_images=others, **options)
    return buffer.getvalue()


def test_of_a_file_with_a_smaller_self_the_picture_is_taken_and_it_is_said() -> None:
    pillow_heif.register_heif_opener()
    for content, page in ((pages("TIFF", 128, 32), 1), (pages("TIFF", 40, 128), 2)):
        found = read(content)
        assert found.image.size == (128, 128)
        assert found.notes == (f"page {page} of 2 is used, the others are smaller",)
    for content in (pages("HEIF", 128, 64), pages("MPO", 128, 64)):
        found = read(content)
        assert found.image.size == (128, 128) and found.notes == ("the main one of its 2 images is used",)


def test_two_whole_pages_are_two_pictures_and_a_page_may_not_break_a_limit() -> None:
    with pytest.raises(RejectedImageError, match="several pictures: 2 pages: save each as a separate file"):
        read(pages("TIFF", 128, 120))
    with pytest.raises(RejectedImageError, match="too many pixels"):
        decode(pages("TIFF", 40, 400), LIMITS.model_copy(update={"max_pixels": 20_000}))
    with pytest.raises(RejectedImageError, match="too small"):
        read(pages("TIFF", 31, 12))


def test_what_did_not_count_is_in_the_manifest_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    broken = [original(f"{i}.png", encoded(noise(i), "PNG", icc_profile=b"no profile")) for i in range(3)]
    _, manifest, _ = taken_in([*broken, original("good.png", encoded(noise(9)))], intake())
    assert (manifest["notes"] != "").tolist() == [True, True, True, False]
    assert [m for m in caplog.messages if m.startswith("0.png and 2 more: its color profile was ignored")]
