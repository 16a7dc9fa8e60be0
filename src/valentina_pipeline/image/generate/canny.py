"""Canny edges as a ControlNet's input, and the F1 of a generated image's edges."""

import numpy as np
from PIL import Image

THRESHOLDS = (100, 200)
"""Gradient thresholds: a line starts above the higher one and continues above the lower one."""

TOLERANCE = 1
"""Allowed distance of a matching edge in pixels; a latent cell of the tiny base model is 8 pixels wide."""


def edges(image: Image.Image) -> Image.Image:
    """Return an image's edges (Canny 1986), white on black, RGB, in the image's size."""
    import cv2

    lines = cv2.Canny(np.asarray(image.convert("L")), *THRESHOLDS)
    return Image.fromarray(lines).convert("RGB")


def edge_f1(drawn: Image.Image, wanted: Image.Image) -> float:
    """Return the F1 of a generated image's edges, in [0, 1]; 0 if either side has no edges.

    An edge pixel matches if the other side has one within TOLERANCE pixels, diagonals included.

    Args:
        drawn: generated image, RGB.
        wanted: control image: edges, white on black, same size.
    """
    import cv2

    actual, target = (np.asarray(lines.convert("L")) > 127 for lines in (edges(drawn), wanted))
    if not actual.any() or not target.any():
        return 0.0
    kernel = np.ones((2 * TOLERANCE + 1,) * 2, np.uint8)
    near_actual, near_target = (cv2.dilate(lines.astype(np.uint8), kernel) > 0 for lines in (actual, target))
    precision, recall = near_target[actual].mean(), near_actual[target].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0
