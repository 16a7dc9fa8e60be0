"""Edges of a picture, which a ControlNet follows, and how well a drawn picture keeps to them."""

import numpy as np
from PIL import Image

THRESHOLDS = (100, 200)
"""Of the gradient: a line starts above the higher one and goes on above the lower one."""

TOLERANCE = 1
"""Pixels that an edge may lie beside its place: a latent of the tiny base is 8 wide."""


def edges(image: Image.Image) -> Image.Image:
    """Return a picture's edges, white on black, RGB and as large (Canny 1986)."""
    import cv2

    found = cv2.Canny(np.asarray(image.convert("L")), *THRESHOLDS)
    return Image.fromarray(found).convert("RGB")


def edge_f1(drawn: Image.Image, wanted: Image.Image) -> float:
    """Return the F1 of a drawn picture's edges against those wanted, in [0, 1]; 0 where either has none.

    An edge is right where the other picture has one within TOLERANCE pixels, up, down, aside or across.

    Args:
        drawn: RGB.
        wanted: edges, white on black, as large.
    """
    import cv2

    found, asked = (np.asarray(lines.convert("L")) > 127 for lines in (edges(drawn), wanted))
    if not found.any() or not asked.any():
        return 0.0
    around = np.ones((2 * TOLERANCE + 1,) * 2, np.uint8)
    near_found, near_asked = (cv2.dilate(lines.astype(np.uint8), around) > 0 for lines in (found, asked))
    precision, recall = near_asked[found].mean(), near_found[asked].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0
