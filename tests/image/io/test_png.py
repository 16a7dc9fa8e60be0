import numpy as np
import pytest
from PIL import Image

from portraits import noise
from valentina_pipeline.image.io import png


@pytest.mark.parametrize("size", [(90, 60), (2400, 1800)])
def test_pixels_and_texts_come_back_and_the_same_bytes_again(size: tuple[int, int]) -> None:
    image = noise(1, *size)
    image.info["text"] = {"Comment": "über ☂", "Author": "me"}
    content = png.encode(image)
    found = png.decode(content)
    assert np.array_equal(np.asarray(found), np.asarray(image)) and found.info["text"] == image.info["text"]
    assert png.encode(image) == content


def test_a_photograph_is_no_larger_for_being_written_in_a_quarter_of_the_time() -> None:
    import io

    grain = np.random.default_rng(0).normal(0, 2.5, (1800, 2400, 3))
    photograph = Image.fromarray((np.asarray(noise(1, 2400, 1800)) + grain).clip(0, 255).astype(np.uint8))
    usual = io.BytesIO()
    photograph.save(usual, "PNG")
    assert len(png.encode(photograph)) < 1.05 * usual.tell()
