"""Drawing from a picture, by the tiny base, whose pictures are ones that can be looked at."""

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

import packages
import tiny_bases
from given import somebody, somebody_described
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.domain.samplers import SAMPLERS
from valentina_pipeline.image.generate.generate import ImageSpec, generate_images
from valentina_pipeline.image.generate.img2img import MASK_BLUR_RADIUS, InitImage, skipped_steps
from valentina_pipeline.image.models.base_model import load_base
from valentina_pipeline.serving.inference.engine import _scheduler

SIZE = 128
ASKED = ImageSpec("photo of a woman, smiling, wearing a red dress, beach background", 3)


@lru_cache(maxsize=1)
def pipe() -> Any:
    model = yaml.safe_load((packages.ROOT / "conf/base/bases.yml").read_text("utf-8"))["tiny"]["model"]
    return load_base(BaseConfig(**model), packages.ROOT).pipe


def drawn(start: InitImage | None, steps: int = 8, asked: ImageSpec = ASKED) -> Image.Image:
    return generate_images(pipe(), [asked], steps, 1.5, SIZE, start=start)[0]


def apart(one: Image.Image, other: Image.Image) -> float:
    """Return the mean absolute difference of two pictures, of 255."""
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).mean())


def test_the_stronger_the_less_of_the_start_is_left() -> None:
    anew = drawn(None)
    shown = [drawn(InitImage(somebody(), strength)) for strength in (0.1, 0.4, 0.8)]
    away = [apart(image, somebody()) for image in shown]
    assert away == sorted(away)
    assert away[0] < 12
    assert away[0] < away[2] / 2
    assert apart(shown[2], anew) < apart(shown[0], anew)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_begins_from_a_picture_in_the_middle_of_its_steps(name: str) -> None:
    steps: list[int] = []
    own = pipe().scheduler
    pipe().scheduler = _scheduler(name, own)
    try:
        sampler = pipe().scheduler
        near = generate_images(
            pipe(),
            [ImageSpec(somebody_described(), 3)],
            5,
            1.5,
            SIZE,
            start=InitImage(somebody(), 0.4),
            on_step=lambda done, _: steps.append(done),
        )[0]
        assert pipe().scheduler is sampler  # it is put back
    finally:
        pipe().scheduler = own
    assert steps == [1, 2]
    assert apart(near, somebody()) < 25


def test_behind_a_mask_something_is_drawn_anew_and_all_else_stays_to_the_last_bit() -> None:
    mask = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(mask).rectangle((0, 64, SIZE, SIZE), fill=255)
    image = drawn(InitImage(somebody(), 0.9, mask))
    before, after = np.asarray(somebody()), np.asarray(image)
    assert np.array_equal(before[:64], after[:64])
    assert np.abs(before[64 + MASK_BLUR_RADIUS :].astype(int) - after[64 + MASK_BLUR_RADIUS :]).mean() > 10
    # what is drawn fits to what stays: along the seam it is no further off than inside
    seam = np.abs(after[66].astype(int) - after[62]).mean()
    assert seam < np.abs(np.asarray(drawn(None)).astype(int)[66] - before[62]).mean()


def test_each_image_s_noise_is_its_own_also_from_a_start() -> None:
    start = InitImage(somebody(), 0.8)
    two = [ASKED, ImageSpec(ASKED.prompt, 4)]
    together = generate_images(pipe(), two, 4, 1.5, SIZE, start=start)
    alone = [generate_images(pipe(), [one], 4, 1.5, SIZE, start=start)[0] for one in two]
    assert all(apart(one, other) < 0.5 for one, other in zip(together, alone, strict=True))
    assert apart(*alone) > 3


def test_bases_with_4_latent_channels_begin_from_pictures_alike() -> None:
    start = InitImage(somebody().resize((tiny_bases.SIZE,) * 2), 0.5)
    image = generate_images(tiny_bases.loaded("sd15").pipe, [ASKED], 4, 2.0, tiny_bases.SIZE, start=start)[0]
    assert np.asarray(image).std() > 0


@pytest.mark.parametrize(("strength", "done"), [(0.0, 1), (0.02, 1), (0.5, 10), (1.0, 20)])
def test_strength_is_a_share_of_the_steps_and_at_least_one(strength: float, done: int) -> None:
    assert 20 - skipped_steps(20, strength) == done
