import contextlib
import hashlib
import io
import json
import logging
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pillow_heif
import pytest
from PIL import Image, ImageCms

from packages import stage
from portraits import noise
from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.domain.manifest import select_held_out
from valentina_pipeline.domain.rights import RightsRecord
from valentina_pipeline.image.ingest import ingest as taking_in
from valentina_pipeline.image.ingest import screening as judging
from valentina_pipeline.image.ingest.ingest import NoImagesError
from valentina_pipeline.image.ingest.rendered_source import scene
from valentina_pipeline.image.ingest.result_cache import ResultCache
from valentina_pipeline.image.ingest.screening import ScreeningContext
from valentina_pipeline.image.ingest.source_image import SourceImage
from valentina_pipeline.image.ingest.upscale import Upscaler
from valentina_pipeline.image.io import png
from valentina_pipeline.image.io.decode import RejectedImageError, decode
from valentina_pipeline.image.renderer.prompt_parser import InvalidIdentityError, parse_identity
from valentina_pipeline.image.renderer.traits import BACKGROUNDS, EXPRESSIONS

LIMITS = IngestConfig.model_validate(
    {
        **stage("ingest"), "num_rendered_images": 4,
        "min_side": 32, "max_bytes": 1_000_000, "min_sharpness": 0,
        "brightness_range": (0, 1), "max_clipped_fraction": 1, "max_noise": 100, "min_jpeg_quality": 0,
    }
)  # fmt: skip
TODAY = date(2024, 6, 7)


def record(**changes: Any) -> RightsRecord:
    return RightsRecord.model_validate(
        {
            "id": "all",
            "holder": "the tests",
            "covers": "*",
            "uses": ("training",),
            "license": "Apache-2.0",
            "synthetic": True,
            "evidence": "made here",
            **changes,
        }
    )


def intake(
    *rights: RightsRecord, unsafe: Callable[[Image.Image], str | None] = lambda image: None
) -> ScreeningContext:
    return ScreeningContext(LIMITS, rights or (record(),), TODAY, unsafe)


def ingest(
    originals: list[SourceImage], by: ScreeningContext
) -> tuple[dict[str, bytes], pd.DataFrame, pd.DataFrame]:
    """Take in, in this process, what no journal knows."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(ResultCache(Path(folder))) as journal:
        images, manifest, rejections = taking_in.ingest(originals, by, journal, each=map)
        return {name: path.read_bytes() for name, path in images.items()}, manifest, rejections


def original(name: str, content: bytes) -> SourceImage:
    return SourceImage(name, lambda: content, {})


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def same(image: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(image), np.asarray(other))


def reason(content: bytes) -> tuple[str, str]:
    with pytest.raises(RejectedImageError) as caught:
        decode(content, LIMITS)
    return caught.value.reason, caught.value.detail


def claimed_png(width: int, height: int) -> bytes:
    """Return the beginning of a PNG whose header claims this size: a bomb of a few bytes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 1000) + b"IDAT"


def test_an_image_is_named_by_the_hash_of_its_stored_bytes() -> None:
    images, manifest, rejections = ingest([original("a.png", encoded(noise(1)))], intake())

    (name,) = images
    assert hashlib.sha256(images[name]).hexdigest() == name == manifest["sha256"][0]
    assert same(png.decode(images[name]), noise(1))
    assert list(rejections.columns) == ["source_name", "reason", "detail"] and rejections.empty


def test_the_same_pictures_give_the_same_manifest_in_any_order() -> None:
    originals = [original(f"{i}.png", encoded(noise(i))) for i in range(5)]

    _, one, _ = ingest(originals, intake())
    _, other, _ = ingest(originals[::-1], intake())

    assert one.equals(other)


def test_a_truncated_png_is_unreadable() -> None:
    content = encoded(noise(1))
    assert reason(content[: len(content) // 2])[0] == "unreadable"


def test_a_text_named_jpg_is_not_an_image() -> None:
    assert reason(b"this is no picture")[0] == "not an image"


def test_an_empty_file_is_not_an_image() -> None:
    assert reason(b"")[0] == "not an image"


def test_a_hundred_megapixels_are_refused_before_they_are_decoded() -> None:
    assert reason(claimed_png(10_000, 10_000)) == ("too many pixels", "10000 x 10000 is more than 50,000,000")


def test_more_pixels_than_pillow_would_open_are_refused_too() -> None:
    assert reason(claimed_png(60_000, 60_000))[0] == "too many pixels"


def test_an_animated_gif_is_rejected_as_animated() -> None:
    frames = encoded(noise(1), "GIF", save_all=True, append_images=[noise(2)])
    assert reason(frames) == ("animated", "2 frames")


def test_an_animated_webp_is_rejected_as_animated() -> None:
    assert reason(encoded(noise(1), "WEBP", save_all=True, append_images=[noise(2)]))[0] == "animated"


def test_a_still_gif_is_no_allowed_format() -> None:
    assert reason(encoded(noise(1), "GIF"))[0] == "format not allowed"


def test_a_picture_below_the_shortest_side_is_too_small() -> None:
    assert reason(encoded(noise(1, 200, 31)))[0] == "too small"


def test_a_file_above_the_bytes_is_too_large() -> None:
    _, _, rejections = ingest(
        [original("a.png", encoded(noise(1))), original("b.png", b"x" * (LIMITS.max_bytes + 1))], intake()
    )
    assert rejections.to_dict("records")[0]["reason"] == "too large"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "HEIC", "AVIF"])
def test_each_allowed_format_is_taken_in(file_format: str) -> None:
    pillow_heif.register_heif_opener()
    found = decode(encoded(noise(1), {"HEIC": "HEIF"}.get(file_format, file_format)), LIMITS)
    assert (found.image.mode, found.image.size, found.format) == ("RGB", (96, 64), file_format)


def test_a_phones_jpeg_with_a_second_picture_is_a_jpeg() -> None:
    content = encoded(noise(1), "MPO", save_all=True, append_images=[noise(2)])
    found = decode(content, LIMITS)
    assert (
        found.format == "JPEG" and np.abs(np.asarray(found.image, int) - np.asarray(noise(1), int)).mean() < 8
    )


def test_an_exif_rotation_is_applied_and_its_metadata_dropped() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x010E] = "a secret place"
    image = decode(encoded(noise(1), "PNG", exif=exif), LIMITS).image

    assert image.size == (64, 96) and image.info == {}
    assert same(image, noise(1).transpose(Image.Transpose.ROTATE_270))
    assert b"secret" not in png.encode(image)


def test_cmyk_becomes_rgb_of_the_same_colours() -> None:
    image = decode(encoded(noise(1).convert("CMYK"), "JPEG", quality=95), LIMITS).image
    assert image.mode == "RGB" and np.abs(np.asarray(image, int) - np.asarray(noise(1), int)).mean() < 8


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "I;16", "RGBA"])
def test_every_pixel_mode_becomes_rgb(mode: str) -> None:
    grey = np.asarray(noise(1).convert("L"))
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else noise(1).convert(mode)
    decoded = decode(encoded(image), LIMITS).image

    assert decoded.mode == "RGB"
    if mode in ("L", "LA", "I;16"):
        assert np.array_equal(np.asarray(decoded.convert("L")), grey)


def test_transparency_lies_on_white() -> None:
    image = decode(encoded(Image.new("RGBA", (40, 40), (200, 0, 0, 0))), LIMITS).image
    assert image.getpixel((5, 5)) == (255, 255, 255)


def test_a_colour_profile_is_applied() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    plain = encoded(noise(1), "PNG", icc_profile=srgb.tobytes())
    assert same(decode(plain, LIMITS).image, noise(1))

    swapped = wide_profile(srgb.tobytes())
    assert not same(decode(encoded(noise(1), "PNG", icc_profile=swapped), LIMITS).image, noise(1))


def wide_profile(srgb: bytes) -> bytes:
    """Return a profile like sRGB whose red and blue primaries are exchanged, under another name."""
    changed = srgb.replace(b"s\0R\0G\0B", b"o\0t\0h\0e").replace(b"sRGB", b"othe")
    return changed.replace(b"rXYZ", b"tmpZ").replace(b"bXYZ", b"rXYZ").replace(b"tmpZ", b"bXYZ")


def test_a_broken_colour_profile_is_ignored() -> None:
    image = decode(encoded(noise(1), "PNG", icc_profile=b"no profile"), LIMITS).image
    assert same(image, noise(1))


def test_the_second_of_two_equal_pictures_is_a_duplicate_whatever_its_format() -> None:
    _, manifest, rejections = ingest(
        [original("a.png", encoded(noise(1))), original("b.tiff", encoded(noise(1), "TIFF"))], intake()
    )
    assert list(manifest["source_name"]) == ["a.png"]
    assert rejections.to_dict("records") == [
        {"source_name": "b.tiff", "reason": "duplicate", "detail": "the same pixels as a.png"}
    ]


def test_a_recompressed_picture_is_a_near_duplicate_and_another_picture_is_not() -> None:
    _, manifest, rejections = ingest(
        [
            original("a.png", encoded(noise(1))),
            original("b.jpg", encoded(noise(1), "JPEG", quality=60)),
            original("c.png", encoded(noise(2))),
        ],
        intake(),
    )
    assert list(manifest["source_name"]) == ["a.png", "c.png"]
    assert list(rejections["reason"]) == ["near duplicate"] and "from a.png" in rejections["detail"][0]


def test_a_picture_without_a_rights_record_is_left_out() -> None:
    rights = record(covers="hers_*"), record(id="view", covers="*", uses=("generation",))
    _, manifest, rejections = ingest(
        [original("hers_1.png", encoded(noise(1))), original("other.png", encoded(noise(2)))], intake(*rights)
    )
    assert list(manifest["rights_id"]) == ["all"]
    assert list(rejections["reason"]) == ["rights for another purpose"]


def test_a_record_counts_on_its_last_day_and_not_on_the_next() -> None:
    picture = original("a.png", encoded(noise(1)))
    assert len(ingest([picture], intake(record(expires=TODAY)))[1]) == 1
    with pytest.raises(NoImagesError, match="rights expired"):
        ingest([picture], intake(record(expires=date(2024, 6, 6))))


def test_a_second_record_stands_in_for_an_expired_one() -> None:
    rights = record(expires=date(2020, 1, 1)), record(id="renewed")
    _, manifest, _ = ingest([original("a.png", encoded(noise(1)))], intake(*rights))
    assert list(manifest["rights_id"]) == ["renewed"]


def test_a_file_that_cannot_be_opened_is_a_row() -> None:
    def fails() -> bytes:
        raise PermissionError(13, "Permission denied")

    _, _, rejections = ingest(
        [SourceImage("a.png", fails, {}), original("b.png", encoded(noise(1)))], intake()
    )
    assert rejections.to_dict("records") == [
        {"source_name": "a.png", "reason": "cannot be opened", "detail": "PermissionError: Permission denied"}
    ]


def test_unsafe_content_is_left_out() -> None:
    with pytest.raises(NoImagesError, match="unsafe content"):
        ingest([original("a.png", encoded(noise(1)))], intake(unsafe=lambda image: "exposed"))


def test_when_nothing_is_left_the_error_counts_the_reasons_and_the_log_has_every_row(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = [original(f"{i}.jpg", b"no picture") for i in range(3)]
    with caplog.at_level(logging.WARNING), pytest.raises(NoImagesError, match=r"not an image \(3\)"):
        ingest(broken, intake())
    assert sum("not an image" in message for message in caplog.messages) == 3


def test_attributes_travel_with_their_picture() -> None:
    known = SourceImage("a.png", lambda: encoded(noise(1)), {"expression": "smiling"})
    _, manifest, _ = ingest([known], intake())
    assert json.loads(manifest["attributes"][0]) == {"expression": "smiling"}


def test_no_damaged_byte_crashes_the_decoder() -> None:
    content = encoded(noise(1), "JPEG")
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, len(damaged), 4):
            damaged[place] = int(rng.integers(256))
        with contextlib.suppress(RejectedImageError):  # the only thing that it may raise
            decode(bytes(damaged), LIMITS)


@pytest.mark.parametrize(("count", "expected"), [(1, 0), (2, 1), (3, 1), (4, 2), (9, 2), (10, 2), (30, 6)])
def test_a_fifth_is_held_out_and_never_less_than_two_of_four(count: int, expected: int) -> None:
    assert len(select_held_out([f"{i:064x}" for i in range(count)])) == expected


def test_a_scene_does_not_depend_on_how_many_there_are_and_they_cover_every_word_evenly() -> None:
    scenes = [scene(7, index) for index in range(40)]

    assert scenes[3] == scene(7, 3) != scene(8, 3)
    for words, drawn in (
        (EXPRESSIONS, [s.expression for s in scenes]),
        (BACKGROUNDS, [s.background for s in scenes]),
    ):
        assert {drawn.count(word) for word in words} == {40 // len(words)}
    assert np.histogram([s.yaw for s in scenes], bins=10, range=(-35, 35))[0].tolist() == [4] * 10


def test_an_identity_left_open_is_the_average_womans() -> None:
    words = {"eye_color": "brown", "hair_color": "black", "skin_tone": "tan", "parting": "middle"}
    assert parse_identity(words).jaw == 0.5
    with pytest.raises(InvalidIdentityError, match=r"renderer_parameters\.jaw must be in"):
        parse_identity({**words, "jaw": 2})
    with pytest.raises(InvalidIdentityError, match=r"renderer_parameters\.eye_color must be one of .*pink"):
        parse_identity({**words, "eye_color": "pink"})
    with pytest.raises(InvalidIdentityError, match=r"renderer_parameters\.horns is unknown"):
        parse_identity({**words, "horns": 2})


def test_small_but_good_pictures_are_made_larger_where_a_model_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = Upscaler(2, lambda image: image.resize((2 * image.width, 2 * image.height)))
    monkeypatch.setattr(judging, "upscaler", lambda model: {"twice": twice}[model])
    small, smaller, large = (
        original(f"{side}.png", encoded(noise(side, side, side))) for side in (40, 20, 64)
    )
    limits = LIMITS.model_copy(update={"min_side": 64, "upscale_model": "twice"})
    _, manifest, rejections = ingest([small, smaller, large], replace(intake(), limits=limits))
    assert dict(zip(manifest["source_name"], manifest["width"], strict=True)) == {"40.png": 80, "64.png": 64}
    assert manifest.set_index("source_name")["upscaled"].to_dict() == {"40.png": True, "64.png": False}
    assert rejections["reason"].tolist() == ["too small"]


def test_a_learned_score_leaves_out_what_looks_poor_where_a_model_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judging, "clip_iqa", lambda image, model: 0.9 if image.width > 80 else 0.1)
    limits = LIMITS.model_copy(update={"clip_iqa_model": "some"})
    pictures = [original("a.png", encoded(noise(1))), original("b.png", encoded(noise(2, 64, 64)))]
    _, manifest, rejections = ingest(pictures, replace(intake(), limits=limits))
    assert manifest["clip_iqa"].tolist() == [0.9]
    assert rejections["detail"].tolist() == ["CLIP-IQA 0.1, at least 0.3 is required"]
    assert ingest(pictures, intake())[1][["clip_iqa", "brisque"]].isna().all(axis=None)

    monkeypatch.setattr(judging, "brisque", lambda image, folder: 20.5 if image.width > 80 else 70.0)
    limits = LIMITS.model_copy(update={"brisque_model": "some"})
    _, manifest, rejections = ingest(pictures, replace(intake(), limits=limits))
    assert manifest["brisque"].tolist() == [20.5]
    assert rejections["detail"].tolist() == ["BRISQUE 70, at most 50 is required"]


def test_a_second_run_judges_nothing_again_duplicates_neither(tmp_path: Path) -> None:
    contents = [encoded(noise(1)), encoded(noise(1)), encoded(noise(2)), b"no picture"]
    originals = [
        replace(original(f"{index}.png", content), version=f"v{index}")
        for index, content in enumerate(contents)
    ]
    looked_at: list[int] = []

    def counted(work: Callable[[SourceImage], Any], items: Iterable[SourceImage]) -> list[Any]:
        made = [work(item) for item in items]
        looked_at.append(len(made))
        return made

    with contextlib.closing(ResultCache(tmp_path)) as journal:
        first, again = (taking_in.ingest(originals, intake(), journal, each=counted) for _ in range(2))
    assert looked_at == [4]
    pd.testing.assert_frame_equal(first[1], again[1])
    pd.testing.assert_frame_equal(first[2], again[2])
    assert first[2]["reason"].tolist() == ["duplicate", "not an image"]
