"""Exposure: lost light is a reason, paper and a studio's wall are none; messages say what and how much."""

from functools import lru_cache

import numpy as np
import pytest
from PIL import Image, ImageDraw

from packages import stage
from portraits import picture
from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.image.ingest.quality import check, measure_quality
from valentina_pipeline.image.io.decode import RejectedImageError

LIMITS = IngestConfig.model_validate(
    {**stage("ingest"), "min_sharpness": 0, "max_noise": 100, "max_overlay_letters": 1000}
)


def verdict(image: Image.Image) -> str:
    try:
        check(measure_quality(image), LIMITS)
    except RejectedImageError as rejection:
        return str(rejection)
    return ""


def drawing(ground: str, ink: str, width: int) -> Image.Image:
    """A head in outline: most of the page is ground, much of it within the lines."""
    page = Image.new("RGB", (512, 512), ground)
    pen = ImageDraw.Draw(page)
    pen.ellipse((150, 100, 360, 380), outline=ink, width=width)
    for x in (200, 285):
        pen.ellipse((x, 200, x + 25, 220), fill=ink)
    pen.arc((215, 260, 295, 320), 20, 160, fill=ink, width=width)
    pen.line((150, 380, 75, 510), fill=ink, width=width)
    return page


@lru_cache(maxsize=1)
def photograph() -> Image.Image:
    return picture(0, size=512)


def exposed(times: float) -> Image.Image:
    light = (np.asarray(photograph(), np.float32) / 255) ** 2.2 * times
    return Image.fromarray((np.clip(light, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8))


@pytest.mark.parametrize("ink", ["black", "#8a2a20", "#808080"])
@pytest.mark.parametrize("width", [3, 8])
def test_a_drawing_on_white_is_well_exposed(ink: str, width: int) -> None:
    assert verdict(drawing("white", ink, width)) == ""
    assert verdict(drawing("#fcfcfc", ink, width)) == ""


def test_a_drawing_on_black_and_a_small_portrait_on_white_or_black_are_well_exposed() -> None:
    assert verdict(drawing("black", "white", 6)) == ""
    for ground in ("white", "black"):
        page = Image.new("RGB", (1024, 1024), ground)
        page.paste(photograph().resize((400, 400)), (312, 500))
        assert verdict(page) == ""


def test_burnt_out_and_drowned_light_is_a_reason_that_says_which_how_much_and_by_which_limit() -> None:
    assert verdict(photograph()) == ""
    assert "too dark, brightness 0.0" in verdict(exposed(0.001))
    assert "at least 0.08 (ingest.brightness_range) is required" in verdict(exposed(0.001))
    ramp = np.clip(np.linspace(180, 1200, 512)[None, :].repeat(512, 0), 0, 255).astype(np.uint8)
    said = verdict(Image.fromarray(ramp).convert("RGB"))
    assert said.startswith("badly exposed: ")
    fading = np.clip(np.linspace(40, 900, 512)[None, :].repeat(512, 0), 0, 255).astype(np.uint8)
    said = verdict(Image.fromarray(fading).convert("RGB"))
    assert said == (
        "badly exposed: 76% burnt-out white and 0% black without detail, clipped 0.7559, "
        "at most 0.7 (ingest.max_clipped_fraction) is required"
    )


@pytest.mark.parametrize("color", ["white", "black"])
def test_a_page_with_nothing_on_it_is_badly_exposed(color: str) -> None:
    page = Image.new("RGB", (400, 400), color)
    assert verdict(page).startswith(f"badly exposed: too {'bright' if color == 'white' else 'dark'}")
    ImageDraw.Draw(page).point((200, 200), "grey")
    assert verdict(page).startswith("badly exposed: ")


def test_a_photographs_figures_are_those_of_all_its_pixels() -> None:
    found, grey = measure_quality(photograph()), np.asarray(photograph().convert("L"))
    assert (
        found.brightness
        == found.brightness_outside_white
        == found.brightness_outside_black
        == round(grey.mean() / 255, 4)
    )
    assert found.clipped_fraction == round(float(((grey <= 5) | (grey >= 250)).mean()), 4)
