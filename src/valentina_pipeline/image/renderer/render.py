"""Rendering: a portrait depends only on (identity, scene, seed), at any size and number of threads."""

from __future__ import annotations

import numpy as np

from valentina_pipeline.image.renderer import kernel
from valentina_pipeline.image.renderer.shape import face_points, palette, shape_record
from valentina_pipeline.image.renderer.traits import Identity, Scene


def render(identity: Identity, scene: Scene, seed: int, size: int = 128, samples: int = 2) -> np.ndarray:
    """Return the portrait as uint8 (size, size, 3), sRGB.

    Args:
        identity: the person.
        scene: pose, expression, clothes, background and light.
        seed: shifts the framing by up to 3 % and varies the strands slightly.
        size: width and height in pixels.
        samples: rays along each side of a pixel on outlines; elsewhere one ray suffices, because the
            painted details are smooth.
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
    """Return bool (n, n): True next to another part or to a depth step above `limit`."""
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
    """Return left eye, right eye, nose tip, left and right mouth corner (the viewer's sides).

    They are float64 (5, 2), x to the right and y down, in [0, 1] of the image side, and match `render` with
    the same arguments.
    """
    return face_points(shape_record(identity, scene, seed))
