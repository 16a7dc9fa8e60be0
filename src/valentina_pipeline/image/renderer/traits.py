"""Traits of a portrait: identity, scene, their vocabularies, and their words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

RGB = tuple[int, int, int]

# sRGB, 0 to 255.
EYE_COLORS: dict[str, RGB] = {
    "brown": (132, 78, 36),
    "dark brown": (62, 34, 20),
    "hazel": (158, 122, 48),
    "green": (66, 142, 74),
    "blue": (58, 128, 206),
    "grey": (142, 154, 164),
}
HAIR_COLORS: dict[str, RGB] = {
    "black": (30, 27, 30),
    "dark brown": (78, 48, 32),
    "light brown": (142, 96, 58),
    "blonde": (218, 178, 108),
    "auburn": (148, 56, 28),
    "grey": (166, 166, 170),
}
SKIN_TONES: dict[str, RGB] = {
    "fair": (240, 202, 182),
    "light": (228, 178, 146),
    "tan": (206, 148, 110),
    "brown": (174, 118, 84),
    "dark": (126, 82, 60),
}
LIP_COLORS: dict[str, RGB] = {
    "fair": (214, 106, 108),
    "light": (204, 92, 92),
    "tan": (190, 80, 78),
    "brown": (150, 60, 60),
    "dark": (122, 48, 50),
}
DRESS_COLORS: dict[str, RGB] = {
    "pale yellow": (248, 230, 146),
    "white": (240, 240, 238),
    "red": (200, 34, 38),
    "blue": (40, 84, 190),
    "green": (36, 128, 70),
    "black": (28, 28, 32),
    "pink": (244, 150, 178),
    "purple": (118, 58, 158),
    "grey": (138, 140, 146),
}
# Left and right are the viewer's.
PARTINGS = ("left side", "middle", "right side")
EXPRESSIONS = ("neutral", "smiling", "laughing", "serious", "surprised")
DRESSES = ("dress", "shirt", "turtleneck", "t-shirt")
BACKGROUNDS = (
    "grey studio",
    "beige wall",
    "blue sky",
    "green garden",
    "night city",
    "beach",
    "teal wall",
    "sunset",
)
LIGHTS = ("soft light", "light from the left", "light from the right", "warm light", "cool light")

_PARTING_WORDS = {
    "left side": "side-parted on the left",
    "middle": "middle-parted",
    "right side": "side-parted on the right",
}


@dataclass(frozen=True)
class Identity:
    """Constant traits of a person, who is always an adult woman.

    Numbers are in [0, 1] with 0.5 as the average; 1 is the wide, large, high, thick or long end. For
    `eye_tilt` 1 means raised outer corners, for `jaw` square and for `chin` broad. The names come from
    `EYE_COLORS`, `HAIR_COLORS`, `SKIN_TONES` and `PARTINGS`.
    """

    face_width: float
    jaw: float
    chin: float
    cheek: float
    eye_spacing: float
    eye_size: float
    eye_tilt: float
    eye_height: float
    brow_thickness: float
    brow_arch: float
    brow_height: float
    nose_width: float
    nose_length: float
    lip_fullness: float
    mouth_width: float
    mouth_height: float
    hair_length: float
    hair_volume: float
    hair_wave: float
    forehead: float
    eye_color: str
    hair_color: str
    skin_tone: str
    parting: str


@dataclass(frozen=True)
class Scene:
    """Variable traits of one image: angles in degrees, and names from the vocabularies.

    `yaw` > 0 turns the face to the viewer's right (useful range -40 to 40), `pitch` > 0 raises it (-15 to
    15), `roll` > 0 tilts the head clockwise (-10 to 10).
    """

    yaw: float
    pitch: float
    roll: float
    expression: str
    dress: str
    dress_color: str
    background: str
    light: str


GEOMETRY = tuple(name for name, kind in Identity.__annotations__.items() if kind == "float")


def _pick(rng: np.random.Generator, names: Iterable[str]) -> str:
    choices = tuple(names)
    return choices[int(rng.integers(len(choices)))]


def random_identity(rng: np.random.Generator) -> Identity:
    """Return a random identity: geometry uniform in [0, 1], colors uniform over their names."""
    return Identity(
        **{name: float(rng.uniform()) for name in GEOMETRY},
        eye_color=_pick(rng, EYE_COLORS),
        hair_color=_pick(rng, HAIR_COLORS),
        skin_tone=_pick(rng, SKIN_TONES),
        parting=_pick(rng, PARTINGS),
    )


def random_scene(rng: np.random.Generator) -> Scene:
    """Return a random scene: yaw within 35, pitch within 12, roll within 6 degrees."""
    return Scene(
        yaw=float(rng.uniform(-35.0, 35.0)),
        pitch=float(rng.uniform(-12.0, 12.0)),
        roll=float(rng.uniform(-6.0, 6.0)),
        expression=_pick(rng, EXPRESSIONS),
        dress=_pick(rng, DRESSES),
        dress_color=_pick(rng, DRESS_COLORS),
        background=_pick(rng, BACKGROUNDS),
        light=_pick(rng, LIGHTS),
    )


def _third(value: float, low: str, middle: str, high: str) -> str:
    return low if value < 1 / 3 else middle if value < 2 / 3 else high


def _face_word(identity: Identity) -> str:
    if identity.face_width < 0.25:
        return "long"
    if identity.jaw > 0.7:
        return "square"
    if identity.face_width > 0.7:
        return "round"
    if identity.jaw < 0.35:
        return "heart-shaped"
    return "oval"


def _pose_words(scene: Scene) -> str:
    turn = abs(scene.yaw)
    side = "right" if scene.yaw > 0 else "left"
    words = "facing the camera"
    if turn > 8.0:
        words = f"turned {'slightly ' if turn <= 20.0 else ''}to the {side}"
    if abs(scene.pitch) > 7.0:
        words += ", looking up" if scene.pitch > 0 else ", looking down"
    return words


def attributes(identity: Identity, scene: Scene) -> dict[str, str]:
    """Return the true attributes of a portrait in words; left and right are the viewer's."""
    return {
        "face": _face_word(identity),
        "eyes": identity.eye_color,
        "brows": _third(identity.brow_thickness, "thin", "natural", "thick"),
        "nose": _third(identity.nose_width, "delicate", "straight", "broad"),
        "lips": _third(identity.lip_fullness, "thin", "medium", "full"),
        "hair_color": identity.hair_color,
        "hair_length": _third(identity.hair_length, "short", "shoulder-length", "long"),
        "parting": _PARTING_WORDS[identity.parting],
        "skin": identity.skin_tone,
        "expression": scene.expression,
        "pose": _pose_words(scene),
        "dress": f"{scene.dress_color} {scene.dress}",
        "background": scene.background,
        "light": scene.light,
    }
