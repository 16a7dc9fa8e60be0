"""Conversion of identity and scene to the numbers that the kernels read."""

from __future__ import annotations

import math

import numpy as np

from valentina_pipeline.image.renderer import kernel
from valentina_pipeline.image.renderer.traits import (
    BACKGROUNDS,
    DRESS_COLORS,
    DRESSES,
    EYE_COLORS,
    HAIR_COLORS,
    LIP_COLORS,
    RGB,
    SKIN_TONES,
    Identity,
    Scene,
)

_FIELDS = (
    "face_rx",
    "jaw_taper",
    "jaw_x",
    "chin_rx",
    "chin_y",
    "cheek_x",
    "cheek_y",
    "cheek_r",
    "eye_x",
    "eye_y",
    "eye_half",
    "eye_up",
    "eye_low",
    "eye_tilt",
    "iris_r",
    "gaze_x",
    "gaze_y",
    "brow_y",
    "brow_half",
    "brow_arch",
    "brow_tip",
    "nose_y",
    "wing_x",
    "bridge_r",
    "tip_r",
    "mouth_y",
    "mouth_half",
    "mouth_open",
    "smile",
    "upper_lip",
    "lower_lip",
    "teeth",
    "hair_end",
    "hair_rx",
    "hair_ry",
    "hair_rz",
    "hair_flare",
    "hair_wave",
    "hair_phase",
    "part_x",
    "hairline_y",
    "open_half",
    "open_close",
    "m00",
    "m01",
    "m02",
    "m10",
    "m11",
    "m12",
    "m20",
    "m21",
    "m22",
    "body_sin",
    "body_cos",
    "frame",
    "camera_x",
    "camera_y",
    "backdrop_shift",
    "key_x",
    "key_y",
    "key_z",
    "key_side",
)
SHAPE_DTYPE = np.dtype(
    [(name, np.float64) for name in _FIELDS] + [("dress", np.int64), ("background", np.int64)]
)

# smile, mouth opening, teeth, mouth width, brow raise, brow tip, eye opening, lower lid, cheek
_EXPRESSIONS = {
    "neutral": (0.030, 0.00, 0.00, 1.00, 0.000, 0.000, 1.00, 1.00, 0.0),
    "smiling": (0.105, 0.00, 0.00, 1.22, 0.015, 0.000, 0.96, 0.78, 0.7),
    "laughing": (0.120, 0.21, 0.085, 1.28, 0.030, 0.000, 0.80, 0.62, 1.0),
    "serious": (-0.035, 0.00, 0.00, 0.92, -0.022, 0.020, 0.84, 0.92, 0.0),
    "surprised": (0.000, 0.20, 0.035, 0.72, 0.085, -0.010, 1.24, 1.15, 0.0),
}

# key direction (x right, y up, z to the viewer), key, fill and ambient strength and tint
_LIGHTS = {
    "soft light": ((-0.38, 0.70, 0.85), 0.98, 0.30, 0.40, (1.00, 0.97, 0.94), (0.97, 0.98, 1.00)),
    "light from the left": ((-1.00, 0.38, 0.42), 1.45, 0.10, 0.24, (1.00, 0.97, 0.93), (0.92, 0.96, 1.00)),
    "light from the right": ((1.00, 0.38, 0.42), 1.45, 0.10, 0.24, (1.00, 0.97, 0.93), (0.92, 0.96, 1.00)),
    "warm light": ((0.45, 0.50, 0.80), 1.05, 0.30, 0.38, (1.10, 0.84, 0.54), (1.05, 0.88, 0.70)),
    "cool light": ((-0.45, 0.55, 0.80), 1.00, 0.32, 0.44, (0.74, 0.90, 1.16), (0.72, 0.90, 1.18)),
}


def _span(low: float, high: float, t: float) -> float:
    return low + (high - low) * t


def _face(identity: Identity) -> dict[str, float]:
    i = identity
    return {
        "face_rx": _span(0.57, 0.71, i.face_width),
        "jaw_taper": _span(0.24, -0.10, i.jaw),
        "jaw_x": _span(0.26, 0.40, i.jaw) + _span(-0.05, 0.05, i.face_width),
        "chin_rx": _span(0.11, 0.24, i.chin),
        "chin_y": _span(-0.88, -0.80, i.face_width),
        "cheek_x": _span(0.33, 0.40, i.face_width),
        "cheek_y": -0.22,
        "cheek_r": _span(0.17, 0.25, i.cheek),
        "eye_x": _span(0.255, 0.335, i.eye_spacing),
        "eye_y": _span(-0.05, 0.07, i.eye_height),
        "eye_half": _span(0.150, 0.190, i.eye_size),
        "eye_up": _span(0.082, 0.116, i.eye_size),
        "eye_low": _span(0.062, 0.084, i.eye_size),
        "eye_tilt": _span(-0.10, 0.24, i.eye_tilt),
        "iris_r": _span(0.084, 0.102, i.eye_size),
        "brow_y": _span(0.17, 0.25, i.brow_height) + _span(-0.05, 0.07, i.eye_height),
        "brow_half": _span(0.010, 0.046, i.brow_thickness),
        "brow_arch": _span(0.005, 0.075, i.brow_arch),
        "brow_tip": 0.0,
        "nose_y": _span(-0.23, -0.35, i.nose_length),
        "wing_x": _span(0.062, 0.140, i.nose_width),
        "bridge_r": _span(0.035, 0.062, i.nose_width),
        "tip_r": _span(0.062, 0.100, i.nose_width),
        "mouth_y": _span(-0.63, -0.54, i.mouth_height),
        "mouth_half": _span(0.185, 0.265, i.mouth_width),
        "upper_lip": _span(0.032, 0.090, i.lip_fullness),
        "lower_lip": _span(0.045, 0.125, i.lip_fullness),
    }


def _hair(identity: Identity, rng: np.random.Generator) -> dict[str, float]:
    i = identity
    # Three clearly separate lengths with a little freedom inside each.
    third = min(int(i.hair_length * 3.0), 2)
    within = i.hair_length * 3.0 - third
    end = ((-0.62, -0.74), (-1.12, -1.28), (-2.2, -2.6))[third]
    volume = i.hair_volume
    return {
        "hair_end": _span(end[0], end[1], within),
        "hair_rx": _span(0.84, 0.98, volume),
        "hair_ry": _span(0.96, 1.12, volume),
        "hair_rz": _span(0.94, 1.02, volume),
        "hair_flare": (0.10, 0.08, 0.02)[third] + _span(0.0, 0.08, volume),
        "hair_wave": _span(0.0, 0.055, i.hair_wave),
        "hair_phase": rng.uniform(-0.5, 0.5) + 4.0 * i.hair_wave,
        "part_x": {"left side": -0.27, "middle": 0.0, "right side": 0.27}[i.parting],
        "hairline_y": _span(0.62, 0.80, i.forehead),
        "open_half": _span(0.57, 0.68, i.face_width),
        "open_close": (0.0, 0.08, 0.20)[third],
    }


def _express(fields: dict[str, float], expression: str) -> None:
    smile, opening, teeth, width, brow, tip, eye, lower_lid, cheek = _EXPRESSIONS[expression]
    fields["smile"] = smile
    fields["mouth_open"] = opening
    fields["teeth"] = teeth
    fields["mouth_half"] *= width
    fields["brow_y"] += brow
    fields["brow_tip"] += tip
    fields["eye_up"] *= eye
    fields["eye_low"] *= lower_lid
    fields["cheek_y"] += 0.05 * cheek
    fields["cheek_r"] += 0.02 * cheek
    fields["chin_y"] -= 0.35 * opening
    fields["upper_lip"] *= 1.0 - 0.25 * min(opening * 5.0, 1.0)
    fields["lower_lip"] *= 1.0 - 0.25 * min(opening * 5.0, 1.0)


def _rotation(scene: Scene) -> np.ndarray:
    """Return the rotation from head to world, (3, 3)."""
    yaw, pitch, roll = np.radians([scene.yaw, scene.pitch, scene.roll])
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return tilt @ turn @ nod


def _pose(scene: Scene, rng: np.random.Generator) -> dict[str, float]:
    rotation = _rotation(scene)
    body = math.radians(0.4 * scene.yaw)
    face_x = rotation[0, 2] * 0.25 + rotation[0, 1] * 0.9
    fields = {f"m{r}{c}": rotation[r, c] for r in range(3) for c in range(3)}
    shift_x, shift_y, scale = rng.uniform(-0.03, 0.03, 3)
    frame = 3.75 * (1.0 + scale)
    return fields | {
        "body_sin": math.sin(body),
        "body_cos": math.cos(body),
        "frame": frame,
        "camera_x": face_x + shift_x * frame,
        "camera_y": -0.36 + shift_y * frame,
        "backdrop_shift": rng.uniform(-0.03, 0.03),
        # The eyes stay on the camera for part of the turn.
        "gaze_x": -0.05 * scene.yaw / 35.0,
        "gaze_y": 0.012 - 0.015 * scene.pitch / 12.0,
    }


def shape_record(identity: Identity, scene: Scene, seed: int) -> np.ndarray:
    """Return all numbers of one image: a (1,) array of `SHAPE_DTYPE`."""
    rng = np.random.default_rng(seed)
    fields = _face(identity) | _hair(identity, rng) | _pose(scene, rng)
    _express(fields, scene.expression)
    direction = np.array(_LIGHTS[scene.light][0])
    direction = direction / np.linalg.norm(direction)
    fields |= dict(zip(("key_x", "key_y", "key_z"), direction, strict=True))
    fields["key_side"] = math.copysign(1.0, direction[0])
    record = np.zeros(1, SHAPE_DTYPE)
    for name, value in fields.items():
        record[name] = value
    record["dress"] = DRESSES.index(scene.dress)
    record["background"] = BACKGROUNDS.index(scene.background)
    return record


def _linear(color: RGB) -> np.ndarray:
    value = np.array(color) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def palette(identity: Identity, scene: Scene) -> np.ndarray:
    """Return the linear colors of one image, float64 (8, 3); the kernels name the rows."""
    _, key, fill, ambient, key_tint, sky_tint = _LIGHTS[scene.light]
    colors = np.zeros((8, 3))
    colors[kernel.SKIN] = _linear(SKIN_TONES[identity.skin_tone])
    colors[kernel.LIPS] = _linear(LIP_COLORS[identity.skin_tone])
    colors[kernel.HAIR] = _linear(HAIR_COLORS[identity.hair_color])
    colors[kernel.IRIS] = _linear(EYE_COLORS[identity.eye_color])
    colors[kernel.CLOTH] = _linear(DRESS_COLORS[scene.dress_color])
    colors[kernel.KEY] = key * np.array(key_tint)
    colors[kernel.FILL] = fill * np.array(sky_tint)
    colors[kernel.AMBIENT] = ambient * np.array(sky_tint)
    return colors


def face_points(record: np.ndarray) -> np.ndarray:
    """Return five landmarks in image coordinates, float64 (5, 2) in [0, 1]."""
    g = record[0]
    corner = g["mouth_y"] + 0.55 * g["smile"]
    marks = [
        (-g["eye_x"], g["eye_y"]),
        (g["eye_x"], g["eye_y"]),
        (0.0, g["nose_y"]),
        (-g["mouth_half"], corner),
        (g["mouth_half"], corner),
    ]
    points = np.array([(x, y, kernel.front_depth(record, x, y)) for x, y in marks])
    rotation = np.array([[g[f"m{r}{c}"] for c in range(3)] for r in range(3)])
    pivot = np.array([0.0, kernel.PIVOT_Y, kernel.PIVOT_Z])
    world = (points - pivot) @ rotation.T + pivot
    scale = kernel.CAMERA_DISTANCE / ((kernel.CAMERA_DISTANCE - world[:, 2]) * g["frame"])
    return np.stack(
        [0.5 + (world[:, 0] - g["camera_x"]) * scale, 0.5 - (world[:, 1] - g["camera_y"]) * scale], axis=1
    )
