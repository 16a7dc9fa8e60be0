"""Portraits of adult women from numbers and words: a small ray-marched 3D model.

A portrait follows from (identity, scene, seed) alone, at any size and with any
number of threads.
"""

from __future__ import annotations

import numpy as np

from valentina_pipeline.image.renderer import kernel
from valentina_pipeline.image.renderer.prompt_parser import InvalidIdentityError, identity, parse_scene
from valentina_pipeline.image.renderer.shape import face_points, palette, shape_record
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
    attributes,
    random_identity,
    random_scene,
)

__all__ = [
    "BACKGROUNDS",
    "DRESSES",
    "DRESS_COLORS",
    "EXPRESSIONS",
    "EYE_COLORS",
    "GEOMETRY",
    "HAIR_COLORS",
    "LIGHTS",
    "PARTINGS",
    "SKIN_TONES",
    "Identity",
    "InvalidIdentityError",
    "Scene",
    "attributes",
    "identity",
    "landmarks",
    "parse_scene",
    "random_identity",
    "random_scene",
    "render",
]


def render(identity: Identity, scene: Scene, seed: int, size: int = 128, samples: int = 2) -> np.ndarray:
    """Portrait as uint8 (size, size, 3), sRGB.

    `seed` moves the framing by up to 3 % and varies the strands a little.  `samples`
    is the number of rays along each side of a pixel on outlines; elsewhere one ray
    is enough, since the painted details are smooth.
    """
    params, colors = shape_record(identity, scene, seed), palette(identity, scene)
    image = np.empty((size, size, 3))
    depths = np.empty((size, size))
    parts = np.empty((size, size), np.int8)
    kernel.draw(params, colors, 1, np.ones((size, size), np.bool_), image, depths, parts)
    if samples > 1:
        edges = _outlines(depths, parts, 5.0 * params[0]["frame"] / size)
        kernel.draw(params, colors, samples, edges, image, depths, parts)
    return (image + 0.5).astype(np.uint8)


def _outlines(depths: np.ndarray, parts: np.ndarray, limit: float) -> np.ndarray:
    """Pixels next to another part or to a step in depth above the limit: bool (n, n)."""
    edges = np.zeros(parts.shape, np.bool_)
    for here, there in (
        (np.s_[1:], np.s_[:-1]),
        (np.s_[:, 1:], np.s_[:, :-1]),
    ):
        step = (parts[here] != parts[there]) | (np.abs(depths[here] - depths[there]) > limit)
        edges[here] |= step
        edges[there] |= step
    return edges


def landmarks(identity: Identity, scene: Scene, seed: int) -> np.ndarray:
    """Left eye, right eye, nose tip, left and right mouth corner, as the viewer sees them.

    float64 (5, 2): x to the right and y downwards, in [0, 1] of the image side; the
    points of `render` with the same arguments.
    """
    return face_points(shape_record(identity, scene, seed))
