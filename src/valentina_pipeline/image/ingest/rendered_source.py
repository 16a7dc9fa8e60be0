"""Rendered source: portraits of one identity in scenes that cover every trait evenly."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from valentina_pipeline.image.ingest.source_image import SourceImage
from valentina_pipeline.image.io import png
from valentina_pipeline.image.renderer.render import render
from valentina_pipeline.image.renderer.traits import (
    BACKGROUNDS,
    DRESS_COLORS,
    DRESSES,
    EXPRESSIONS,
    LIGHTS,
    Identity,
    Scene,
    attributes,
    random_scene,
)

SMALLEST = 768
"""Minimum render size in pixels, so that a crop exceeds the tiny base's resolution."""

YAW = 35.0
YAW_STEPS = 10


def scene(seed: int, index: int) -> Scene:
    """Return scene `index`, independent of the number of scenes.

    The scene is random, but each vocabulary is sampled in shuffled rounds and yaw in strata, so that any
    run of consecutive scenes covers them evenly.
    """
    sampled = random_scene(np.random.default_rng([seed, index]))
    step = _round(seed, index, 0, YAW_STEPS)
    within = (sampled.yaw + YAW) / (2 * YAW)
    vocabularies = {
        "expression": EXPRESSIONS,
        "dress": DRESSES,
        "dress_color": tuple(DRESS_COLORS),
        "background": BACKGROUNDS,
        "light": LIGHTS,
    }
    words: dict[str, Any] = {
        field: options[_round(seed, index, number, len(options))]
        for number, (field, options) in enumerate(vocabularies.items(), start=1)
    }
    return replace(sampled, yaw=YAW * (2 * (step + within) / YAW_STEPS - 1), **words)


def _round(seed: int, index: int, field: int, options: int) -> int:
    """Return the option of `index`: each round of `options` indices is a permutation."""
    turn, place = divmod(index, options)
    return int(np.random.default_rng([seed, field, turn, options]).permutation(options)[place])


def portraits(woman: Identity, trigger: str, count: int, size: int, seed: int) -> Sequence[SourceImage]:
    """Return `count` portraits, each rendered when its content is read.

    Args:
        woman: the identity of all portraits.
        trigger: prefix of their names.
        count: number of portraits; a larger count keeps the earlier ones unchanged.
        size: width and height in pixels.
        seed: seed of scenes, framing and strands.
    """
    scenes = [scene(seed, index) for index in range(count)]
    return [
        SourceImage(
            name=f"{trigger}_{index:04d}.png",
            content=partial(_render, woman, view, index, size),
            attributes=attributes(woman, view),
        )
        for index, view in enumerate(scenes)
    ]


def _render(identity: Identity, view: Scene, seed: int, size: int) -> bytes:
    return png.encode(Image.fromarray(render(identity, view, seed, size)))
