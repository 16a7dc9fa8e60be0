from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from portraits import noise, picture
from valentina_pipeline.image.lettering import letters

FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


def stamped(
    image: Image.Image, text: str, height: int, colour: tuple[int, int, int], opacity: int
) -> Image.Image:
    layer = Image.new("RGBA", image.size, (*colour, 0))
    font = ImageFont.truetype(FONT, height)
    ImageDraw.Draw(layer).text((20, image.height // 3), text, font=font, fill=(*colour, opacity))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


@pytest.mark.parametrize("index", range(6))
def test_portraits_and_noise_have_no_letters(index: int) -> None:
    assert letters(picture(index, index % 2, size=512)) == 0
    assert letters(noise(index, 700, 500)) == 0


def test_a_photograph_of_fine_detail_has_no_letters() -> None:
    photograph = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"
    assert letters(Image.open(photograph)) == 0


@pytest.mark.parametrize("opacity", [120, 255])
@pytest.mark.parametrize("height", [16, 20, 24])
def test_a_watermark_is_found_on_most_portraits(height: int, opacity: int) -> None:
    text = "© Studio Example 2024"
    pictures = (picture(index, size=512) for index in range(6))
    found = [letters(stamped(image, text, height, (255, 255, 255), opacity)) > 0 for image in pictures]
    assert sum(found) >= 4


def test_large_writing_and_writing_on_a_large_picture_are_found() -> None:
    plain = Image.fromarray(np.full((3000, 2000, 3), 120, np.uint8))
    assert letters(stamped(plain, "SAMPLE SAMPLE", 150, (230, 230, 230), 255)) >= 10
    assert letters(stamped(plain, "SAMPLE SAMPLE", 40, (230, 230, 230), 255)) >= 10


def test_fewer_than_five_letters_are_no_line() -> None:
    plain = Image.fromarray(np.full((500, 500, 3), 120, np.uint8))
    assert letters(stamped(plain, "ABC", 30, (230, 230, 230), 255)) == 0
