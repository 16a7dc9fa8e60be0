"""The renderer as a source of portraits: one woman in scenes spread evenly over what varies."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from valentina_pipeline.image import png, portrait
from valentina_pipeline.image.originals import Original

SMALLEST = 768
"""Pixels: what is rendered at least, so that a crop has more than the tiny base needs."""

YAW = 35.0
YAW_STEPS = 10


class BadIdentity(ValueError):
    """A concept's identity has a key that the renderer does not know, or lacks one."""


def identity(parameters: Mapping[str, str | float]) -> portrait.Identity:
    """Return a concept's identity; measures left out are 0.5, the average woman's.

    Raises:
        BadIdentity: a key or a colour name is unknown or missing, or a measure is not in [0, 1].
    """
    names = {
        "eye_color": tuple(portrait.EYE_COLORS),
        "hair_color": tuple(portrait.HAIR_COLORS),
        "skin_tone": tuple(portrait.SKIN_TONES),
        "parting": tuple(portrait.PARTINGS),
    }
    if unknown := sorted(set(parameters) - set(names) - set(portrait.GEOMETRY)):
        raise BadIdentity(
            f"identity.{unknown[0]} is unknown; there are {', '.join((*names, *portrait.GEOMETRY))}"
        )
    for key, allowed in names.items():
        if parameters.get(key) not in allowed:
            raise BadIdentity(
                f"identity.{key} is {parameters.get(key)!r}; it has to be one of {', '.join(allowed)}"
            )
    measures = {key: parameters.get(key, 0.5) for key in portrait.GEOMETRY}
    for key, value in measures.items():
        if isinstance(value, str) or not 0 <= value <= 1:
            raise BadIdentity(f"identity.{key} is {value!r}; it has to lie in [0, 1]")
    merged: dict[str, Any] = {**measures, **{key: parameters[key] for key in names}}
    return portrait.Identity(**merged)


def scene(seed: int, index: int) -> portrait.Scene:
    """Return scene `index`, the same however many there are.

    Drawn at random, except that each vocabulary is gone through in shuffled rounds, and yaw in strata:
    any row of scenes covers all of them evenly.
    """
    drawn = portrait.random_scene(np.random.default_rng([seed, index]))
    step = _round(seed, index, 0, YAW_STEPS)
    within = (drawn.yaw + YAW) / (2 * YAW)
    vocabularies = {
        "expression": portrait.EXPRESSIONS,
        "dress": portrait.DRESSES,
        "dress_color": tuple(portrait.DRESS_COLORS),
        "background": portrait.BACKGROUNDS,
        "light": portrait.LIGHTS,
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


def portraits(woman: portrait.Identity, trigger: str, count: int, size: int, seed: int) -> Sequence[Original]:
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
        Original(
            name=f"{trigger}_{index:04d}.png",
            content=partial(_rendered, woman, view, index, size),
            attributes=portrait.attributes(woman, view),
        )
        for index, view in enumerate(scenes)
    ]


def _rendered(woman: portrait.Identity, view: portrait.Scene, seed: int, size: int) -> bytes:
    return png.encode(Image.fromarray(portrait.render(woman, view, seed, size)))
