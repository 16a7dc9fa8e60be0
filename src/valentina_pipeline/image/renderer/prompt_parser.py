"""Parsing of a concept's identity parameters and of prompts for the renderer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from valentina_pipeline.image.renderer.traits import (
    BACKGROUNDS,
    DRESS_COLORS,
    DRESSES,
    EXPRESSIONS,
    EYE_COLORS,
    GEOMETRY,
    HAIR_COLORS,
    LIGHTS,
    PARTINGS,
    SKIN_TONES,
    Identity,
    Scene,
    random_scene,
)

YAW, SLIGHT_YAW, PITCH = 28.0, 14.0, 10.0
"""Degrees for "turned", "turned slightly", and "looking up" or "looking down"."""

PLACES = tuple(place for place in BACKGROUNDS if not place.endswith("wall"))
"""Backgrounds that can be named by their last word; "wall" is ambiguous."""


class InvalidIdentityError(ValueError):
    """A concept's identity has an unknown or missing key, or an invalid value."""


def parse_identity(parameters: Mapping[str, str | float]) -> Identity:
    """Return a concept's identity; omitted measures are 0.5, the average.

    Raises:
        InvalidIdentityError: a key or color name is unknown or missing, or a measure is not in [0, 1].
    """
    names = {
        "eye_color": tuple(EYE_COLORS),
        "hair_color": tuple(HAIR_COLORS),
        "skin_tone": tuple(SKIN_TONES),
        "parting": PARTINGS,
    }
    if unknown := sorted(set(parameters) - set(names) - set(GEOMETRY)):
        raise InvalidIdentityError(
            f"renderer_parameters.{unknown[0]} is unknown; allowed are {', '.join((*names, *GEOMETRY))}"
        )
    for key, allowed in names.items():
        if parameters.get(key) not in allowed:
            raise InvalidIdentityError(
                f"renderer_parameters.{key} must be one of {', '.join(allowed)} (got {parameters.get(key)!r})"
            )
    measures = {key: parameters.get(key, 0.5) for key in GEOMETRY}
    for key, value in measures.items():
        if isinstance(value, str) or not 0 <= value <= 1:
            raise InvalidIdentityError(f"renderer_parameters.{key} must be in [0, 1] (got {value!r})")
    merged: dict[str, Any] = {**measures, **{key: parameters[key] for key in names}}
    return Identity(**merged)


def parse_scene(prompt: str, seed: int) -> Scene:
    """Return the scene that a prompt describes in the words of `traits.attributes`.

    Args:
        prompt: any text; "smiling, wearing a red dress, beach background" sets three traits.
        seed: seed of the traits that the prompt does not mention.
    """
    sampled = random_scene(np.random.default_rng(seed))
    return replace(sampled, **described_traits(prompt))


def described_traits(prompt: str) -> dict[str, Any]:
    """Return the fields of Scene that a prompt describes; a turn is described by its yaw and pitch."""
    text = " ".join(prompt.casefold().split())
    described: dict[str, Any] = {
        "expression": _first(text, {re.sub("(ing|ed)$", "", word): word for word in EXPRESSIONS}),
        "background": _first(
            text, {**{place.split()[-1]: place for place in PLACES}, **_map_to_itself(BACKGROUNDS)}
        ),
        "light": _first(text, _map_to_itself(LIGHTS)),
        **_dress(text),
        **_pose(text),
    }
    return {field: value for field, value in described.items() if value is not None}


def _dress(text: str) -> dict[str, str | None]:
    colors, garments = (_any_of(words) for words in (DRESS_COLORS, DRESSES))
    found = re.search(rf"(?:\b({colors}) )?(?<![\w-])({garments})\b", text)
    return {"dress_color": found[1], "dress": found[2]} if found else {}


def _pose(text: str) -> dict[str, float]:
    turned = re.search(r"\b(?:turned|looking|facing) (slightly )?(?:to the )?(left|right)\b", text)
    raised = re.search(r"\blooking (up|down)\b", text)
    if not (turned or raised or "facing the camera" in text):
        return {}
    yaw = (SLIGHT_YAW if turned[1] else YAW) * (1 if turned[2] == "right" else -1) if turned else 0.0
    pitch = PITCH * (1 if raised[1] == "up" else -1) if raised else 0.0
    return {"yaw": yaw, "pitch": pitch}


def _first(text: str, names: Mapping[str, str]) -> str | None:
    """Return the value of the first of these names in the text; the longest wins at one position."""
    found = re.search(rf"\b(?:{_any_of(names)})", text)
    return names[found[0]] if found else None


def _any_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _map_to_itself(words: Iterable[str]) -> dict[str, str]:
    return {word: word for word in words}
