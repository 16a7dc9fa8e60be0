"""The watermark: what it survives, that nothing else has it, that nobody sees it."""

import io
import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image

from portraits import noise, picture
from valentina_pipeline.image.provenance.watermark import add_watermark, detect

SIZES = (128, 512)

Treatment = Callable[[Image.Image], Image.Image]


@lru_cache(maxsize=8)
def marked(index: int, size: int) -> Image.Image:
    return add_watermark(picture(index, size=size))


def saved(kind: str, quality: int) -> Treatment:
    def treated(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, kind, quality=quality)
        return Image.open(buffer)

    return treated


def resized(by: float) -> Treatment:
    return lambda image: image.resize((round(image.width * by), round(image.height * by)))


def cropped(left: float, top: float, side: float) -> Treatment:
    def treated(image: Image.Image) -> Image.Image:
        box = (left, top, left + side, top + side)
        return image.crop(tuple(round(share * image.width) for share in box))

    return treated


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "treated",
    [
        saved("PNG", 0),
        saved("JPEG", 60),
        resized(0.5),
        resized(2.0),
        cropped(0.07, 0.02, 0.9),
        cropped(0.0, 0.25, 0.75),
        lambda image: saved("JPEG", 85)(resized(1.25)(image)),
        lambda image: image.convert("L").point(lambda level: level * 0.8 + 10),
    ],
    ids=["kept", "jpeg", "half", "twice", "crop90", "crop75", "screenshot", "grey"],
)
def test_the_mark_survives_what_is_promised(size: int, treated: Treatment) -> None:
    for index in range(2):
        trace = detect(treated(marked(index, size)))
        assert trace.found, trace


def test_half_of_each_side_is_enough_of_a_large_picture() -> None:
    assert detect(cropped(0.3, 0.1, 0.5)(marked(0, 512))).found


@pytest.mark.parametrize("shape", [(192, 64), (96, 320), (640, 1024)])
def test_pictures_of_other_shapes_carry_it_too(shape: tuple[int, int]) -> None:
    assert detect(resized(0.7)(add_watermark(picture(0, size=512).resize(shape)))).found


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_found_where_nothing_is(size: int) -> None:
    for index in range(2):
        assert detect(picture(index, size=size)).chance > 1e-3
    stripes = np.indices((size, size)).sum(0) // 4 % 2 * 255
    for made in (noise(1, size, size), Image.fromarray(stripes.astype(np.uint8))):
        assert detect(made).chance > 1e-3


def test_what_is_not_promised_is_not_found_by_chance_either() -> None:
    mirrored = marked(0, 128).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert not detect(mirrored).found


@pytest.mark.parametrize(("size", "least"), [(128, 40.0), (512, 46.0)])
def test_it_is_too_faint_to_be_seen(size: int, least: float) -> None:
    for index in range(2):
        difference = np.asarray(picture(index, size=size), float) - np.asarray(marked(index, size))
        assert 10 * math.log10(255**2 / np.mean(difference**2)) > least
        assert abs(difference.mean()) < 0.1  # no tint


def test_the_same_picture_is_marked_the_same_and_keeps_its_texts() -> None:
    image = picture(0, size=128).copy()
    image.info = {"text": {"seed": "3"}}
    once, again = add_watermark(image), add_watermark(image)
    assert once.tobytes() == again.tobytes() != image.tobytes()
    assert once.info == {"text": {"seed": "3"}}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (5000, 1), (64, 64)])
def test_odd_pictures_are_marked_and_looked_into_without_an_error(mode: str, shape: tuple[int, int]) -> None:
    odd = Image.new(mode, shape)
    assert add_watermark(odd).size == shape
    assert not detect(odd).found
