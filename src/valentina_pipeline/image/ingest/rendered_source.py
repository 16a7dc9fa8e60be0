"""The renderer as a source of portraits: one woman in scenes spread evenly over what varies."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from valentina_pipeline.image import renderer
from valentina_pipeline.image.ingest.source_image import SourceImage
from valentina_pipeline.image.io import png

SMALLEST = 768
"""Pixels: what is rendered at least, so that a crop has more than the tiny base needs."""

YAW = 35.0
YAW_STEPS = 10


def scene(seed: int, index: int) -> renderer.Scene:
    """Return scene `index`, the same however many there are.

    Drawn at random, except that each vocabulary is gone through in shuffled rounds, and yaw in strata:
    any row of scenes covers all of them evenly.
    """
    drawn = renderer.random_scene(np.random.default_rng([seed, index]))
    step = _round(seed, index, 0, YAW_STEPS)
    within = (drawn.yaw + YAW) / (2 * YAW)
    vocabularies = {
        "expression": renderer.EXPRESSIONS,
        "dress": renderer.DRESSES,
        "dress_color": tuple(renderer.DRESS_COLORS),
        "background": renderer.BACKGROUNDS,
        "light": renderer.LIGHTS,
    }
    words: dict[str, Any] = {
        field: options[_round(seed, index, number, len(options))]
        for number, (field, options) in enumerate(vocabularies.items(), start=1)
    }
    return replace(drawn, yaw=YAW * (2 * (step + within) / YAW_STEPS - 1), **words)


def _round(seed: int, index: int, field: int, options: int) -> int:
    """Return which option `index` takes: each round of `options` indices is a permutation."""
    turn, place = divmod(index, options)
    return int(np.random.default_rng([seed, field, turn, options]).permutation(options)[place])


def portraits(
    woman: renderer.Identity, trigger: str, count: int, size: int, seed: int
) -> Sequence[SourceImage]:
    """Return `count` portraits, each rendered when its content is asked for.

    Args:
        woman: who is in all of them.
        trigger: the first part of their names.
        count: how many; more only adds to those before.
        size: width and height in pixels.
        seed: of scenes, framing and strands.
    """
    scenes = [scene(seed, index) for index in range(count)]
    return [
        SourceImage(
            name=f"{trigger}_{index:04d}.png",
            content=partial(_rendered, woman, view, index, size),
            attributes=renderer.attributes(woman, view),
        )
        for index, view in enumerate(scenes)
    ]


def _rendered(woman: renderer.Identity, view: renderer.Scene, seed: int, size: int) -> bytes:
    return png.encode(Image.fromarray(renderer.render(woman, view, seed, size)))
