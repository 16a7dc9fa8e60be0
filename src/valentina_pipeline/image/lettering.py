"""Writing laid over a picture, such as a watermark: found by its letters, without a learned model.

Strokes that stand out from what is around them, each of one width (Epshtein, Ofek & Wexler 2010), of one
height and on one line: five or more in a row are hardly ever anything but writing. Not all writing is found:
light letters of ordinary size mostly, letters across hair and other fine detail seldom.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDES = (1280, 640, 320)
"""Pixels of the shorter side at which letters are looked for: small ones, and large ones."""

STROKE = 17
"""Pixels: wider than any stroke at these sizes."""

STANDS_OUT = 18
"""Levels of 255 by which a stroke differs from what is around it."""

HEIGHTS = (8, 90)
LEAST = 5
"""Letters of a line."""


@dataclass(frozen=True)
class _Letter:
    x: int
    y: int
    width: int
    height: int
    stroke: float
    level: float

    def follows(self, before: "_Letter") -> bool:
        """Return whether this is the next letter of a line that ends with `before`."""
        tallest = max(self.height, before.height)
        foot = abs(self.y + self.height - before.y - before.height)
        return (
            self.x >= before.x + 0.3 * before.width
            and self.x - before.x - before.width <= 1.2 * tallest
            and tallest < 1.7 * min(self.height, before.height)
            and min(foot, abs(self.y - before.y)) < 0.2 * tallest
            and max(self.stroke, before.stroke) < 1.6 * min(self.stroke, before.stroke)
            and abs(self.level - before.level) < 30
        )


def letters(image: Image.Image) -> int:
    """Return how many letters stand in lines of at least five, of light or of dark writing."""
    import cv2

    grey = np.asarray(image.convert("L"))
    found = 0
    for scale in sorted({min(1.0, side / min(grey.shape)) for side in SIDES}):
        size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        found = max(found, *(_in_lines(_letters(plane)) for plane in (small, 255 - small)))
    return found


def _letters(plane: np.ndarray) -> list[_Letter]:
    """Return what is light, of one stroke width and of a letter's proportions, from left to right."""
    import cv2

    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (STROKE, STROKE))
    mask = (cv2.morphologyEx(plane, cv2.MORPH_TOPHAT, around) > STANDS_OUT).astype(np.uint8)
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(mask)
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    ridge = (distance > 0) & (distance >= cv2.dilate(distance, np.ones((3, 3))))
    _, _, width, height, area = boxes.T
    fill = area / (width * height)
    fits = (height >= HEIGHTS[0]) & (height <= HEIGHTS[1]) & (width >= 2) & (width <= 1.6 * height + 2)
    fits &= (fill >= 0.12) & (fill <= 0.92)
    fits[0] = False  # what is not light
    candidates = (
        _letter(int(index), boxes[index], plane, labels, distance, ridge) for index in np.flatnonzero(fits)
    )
    return sorted((letter for letter in candidates if letter), key=lambda letter: (letter.x, letter.y))


def _letter(
    index: int,
    box: np.ndarray,
    plane: np.ndarray,
    labels: np.ndarray,
    distance: np.ndarray,
    ridge: np.ndarray,
) -> _Letter | None:
    x, y, width, height = (int(value) for value in box[:4])
    window = np.s_[y : y + height, x : x + width]
    middle = (labels[window] == index) & ridge[window]  # the edges of strokes blend into the picture
    half, levels = distance[window][middle], plane[window][middle]
    if (
        half.size < 3
        or half.std() > 0.45 * half.mean()
        or 2 * half.mean() > 0.45 * height
        or levels.std() > 25
    ):
        return None
    return _Letter(x, y, width, height, float(half.mean()), float(levels.mean()))


def _in_lines(found: list[_Letter]) -> int:
    total, used = 0, set()
    for first in range(len(found)):
        line = [first] if first not in used else []
        for index in range(first + 1, len(found) if line else 0):
            last = found[line[-1]]
            if found[index].x - last.x - last.width > 3 * last.height:
                break
            if index not in used and found[index].follows(last):
                line.append(index)
        if len(line) >= LEAST:
            used.update(line)
            total += len(line)
    return total
