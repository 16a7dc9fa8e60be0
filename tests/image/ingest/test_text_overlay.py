from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from portraits import noise, picture
from valentina_pipeline.image.ingest.text_overlay import count_overlay_letters

DATA = Path(matplotlib.get_data_path())
FONT = DATA / "fonts/ttf/DejaVuSans.ttf"
TEXT = "Studio Example 2024"


def stamped(image: Image.Image, gray: int, opacity: int, angle: int = 0) -> Image.Image:
    """Return the image with TEXT laid over it, in letters of 5 % of its height."""
    layer = Image.new("RGBA", image.size, (gray, gray, gray, 0))
    font = ImageFont.truetype(FONT, image.height // 20)
    place = (image.width // 2, image.height // 2)
    ImageDraw.Draw(layer).text(place, TEXT, font=font, fill=(gray, gray, gray, opacity), anchor="mm")
    layer = layer.rotate(angle, resample=Image.Resampling.BICUBIC)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def test_portraits_and_noise_have_no_letters() -> None:
    assert count_overlay_letters(picture(1, 1, size=512)) == 0
    assert count_overlay_letters(noise(1, 700, 500)) == 0


def test_writing_in_the_scene_is_read_and_ornaments_are_not() -> None:
    badge = Image.open(DATA / "sample_data/grace_hopper.jpg")  # COMO HOPPER, beside rows of medals
    assert count_overlay_letters(badge) == 10


def test_rows_of_strokes_are_not_writing() -> None:
    strokes = np.full((500, 500, 3), 110, np.uint8)
    strokes[::40] = strokes[:, ::25] = 200  # bricks
    rng = np.random.default_rng(5)
    for x, y in rng.integers(20, 480, (900, 2)):  # hair
        strokes[y : y + 12, x : x + 2] = rng.integers(40, 220)
    assert count_overlay_letters(Image.fromarray(strokes)) == 0


@pytest.mark.parametrize(("gray", "opacity", "angle"), [(255, 110, 0), (0, 255, 0), (255, 200, 25)])
def test_a_watermark_is_read_on_a_portrait(gray: int, opacity: int, angle: int) -> None:
    assert count_overlay_letters(stamped(picture(2, size=512), gray, opacity, angle)) >= 12
