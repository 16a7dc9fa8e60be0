"""Measure what shows an image's attributes: landmark geometry, gradients, and colors in Lab.

No network but the face detector takes part, and nothing here is learned. Images count as 128 px portraits:
larger ones are reduced.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from PIL import Image

from valentina_pipeline.image.align.head_pose import head_pose
from valentina_pipeline.image.faces.canonical_crop import crop_matrix, face_crop
from valentina_pipeline.image.faces.detection import Face

SIDE = 128

FACE_SIDE, FACE_PART = 80, (slice(16, 80), slice(8, 72))
"""Side in pixels of the canonical crop for expressions, and its part from the brows to the chin."""

LIGHT_SIDE, LIGHT_PART, LIGHT_GRID = 64, (slice(10, 60), slice(10, 54)), 8
"""Side in pixels of the canonical crop for light, its part inside the hairline, and the cells of a side."""

GARMENT_TOP, GARMENT_LEFT = 0.86, 0.15
"""The strip that shows the garment, below the chin, in shares of the image: its top, and its margins."""

SKIN_AND_HAIR = (
    (0.3, 0.55), (0.7, 0.55), (0.5, 0.25), (0.5, -0.15), (0.2, -0.05), (0.8, -0.05), (0.02, 0.5), (0.98, 0.5),
)  # fmt: skip
"""Points in the canonical crop, in its widths, that show skin (the first three) and hair."""

SAME_PART, SAME_BACKGROUND, MIN_GARMENT_PIXELS = 12.0, 8.0, 40
"""Distances in Lab up to which a pixel counts as skin or hair, or as background."""

HUES, GRAY_CHROMA, FULL_CHROMA = 12, 10.0, 28.0
"""Hues of the color histogram, and the chroma up to which a color is gray, and from which it is full."""


def turn(image: np.ndarray, face: Face) -> np.ndarray:
    """Return the head's yaw in degrees, (1,), positive to the viewer's right."""
    return np.array([head_pose(face.landmarks).yaw])


def expression(image: np.ndarray, face: Face) -> np.ndarray:
    """Return the histograms of oriented gradients (Dalal & Triggs 2005) of brows, eyes and mouth."""
    import cv2

    crop = np.asarray(face_crop(Image.fromarray(image), face, FACE_SIDE))
    gray = cv2.GaussianBlur(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (0, 0), 1)
    part = np.ascontiguousarray(gray[FACE_PART])
    gradients = cv2.HOGDescriptor(part.shape, (16, 16), (8, 8), (8, 8), 6)
    return np.asarray(gradients.compute(part), np.float64).ravel()


def light(image: np.ndarray, face: Face) -> np.ndarray:
    """Return the face's mean colors in Lab on a grid, which show the side and tint of the light."""
    import cv2

    crop = np.asarray(face_crop(Image.fromarray(image), face, LIGHT_SIDE))
    grid = cv2.resize(_lab(crop)[LIGHT_PART], (LIGHT_GRID, LIGHT_GRID), interpolation=cv2.INTER_AREA)
    return np.asarray(grid).ravel()


def clothes_color(image: np.ndarray, face: Face) -> np.ndarray:
    """Return the color histogram of the garment below the chin."""
    return color_histogram(_garment_pixels(image, face))


def place(image: np.ndarray, _: Face | None) -> np.ndarray:
    """Return the place vector: Lab histograms of the background at three heights, beside the person."""
    lab, parts = _lab(image), []
    for top, bottom in ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75)):
        band = lab[round(top * SIDE) : round(bottom * SIDE)]
        beside = np.concatenate([band[:, : SIDE // 6], band[:, -SIDE // 6 :]], axis=1).reshape(-1, 3)
        unit = (beside - (0, -60, -70)) / (100, 130, 145)
        parts.append(_soft_histogram(unit, (3, 5, 5)))
    return np.sqrt(np.concatenate(parts))


FEATURES: Mapping[str, Callable[[np.ndarray, Face], np.ndarray]] = {
    "expression": expression,
    "turn": turn,
    "clothes_color": clothes_color,
    "place": place,
    "light": light,
}
"""Measurement of each attribute, from uint8 (128, 128, 3) and the face in its pixels."""


def measure_attributes(image: Image.Image, face: Face | None) -> dict[str, np.ndarray]:
    """Return the measurements by attribute; without a face only the place's."""
    rgb = image.convert("RGB")
    scale = np.array([SIDE / rgb.width, SIDE / rgb.height])
    if rgb.size != (SIDE, SIDE):
        rgb = rgb.resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(rgb)
    if face is None:
        return {"place": place(pixels, None)}
    scaled = replace(face, landmarks=face.landmarks * scale)
    return {field: measure(pixels, scaled) for field, measure in FEATURES.items()}


def color_histogram(lab: np.ndarray) -> np.ndarray:
    """Return the square roots of the shares of colors among pixels, (90,).

    Bins are lightness (6) for grays, hue and lightness for pale (12 x 3) and for full colors (12 x 4). By
    hue, a light blue is nearer to blue than to gray, as for people.

    Args:
        lab: (n, 3).
    """
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    level = 2 * np.clip((chroma - GRAY_CHROMA) / (FULL_CHROMA - GRAY_CHROMA), 0, 1)
    hue = np.arctan2(lab[:, 2], lab[:, 1]) / (2 * np.pi) % 1
    weights = np.clip(1 - level, 0, 1), 1 - abs(level - 1), np.clip(level - 1, 0, 1)
    bright = lab[:, 0] / 100
    parts = [_soft_histogram(bright[:, None], (6,), weights[0])]
    for weight, levels in zip(weights[1:], (3, 4), strict=True):
        counts = _soft_histogram(np.stack([hue, bright], axis=1), (HUES + 1, levels), weight)
        around = counts.reshape(HUES + 1, levels)
        around[0] += around[-1]  # hues form a circle
        parts.append(around[:-1].ravel())
    return np.sqrt(np.concatenate(parts))


def _garment_pixels(image: np.ndarray, face: Face) -> np.ndarray:
    """Return the Lab colors of the strip that are neither skin, hair nor background."""
    import cv2

    lab = cv2.GaussianBlur(_lab(image), (0, 0), 1)
    margin = int(GARMENT_LEFT * SIDE)
    strip = lab[int(GARMENT_TOP * SIDE) :, margin:-margin].reshape(-1, 3)
    person = np.array([_color_at(lab, face, point) for point in SKIN_AND_HAIR])
    # half the weight for lightness: shading changes it most
    from_person = _distance_to_nearest(strip * (0.5, 1, 1), person * (0.5, 1, 1))
    beside = slice(int(0.55 * SIDE), int(0.75 * SIDE))
    edges = np.concatenate([lab[beside, :4].reshape(-1, 3), lab[beside, -4:].reshape(-1, 3)])[::16]
    garment = from_person > SAME_PART
    foreground = garment & (_distance_to_nearest(strip, edges) > SAME_BACKGROUND)
    if foreground.sum() >= MIN_GARMENT_PIXELS:
        return strip[foreground]
    if garment.sum() >= MIN_GARMENT_PIXELS:  # a gray shirt in a gray studio
        return strip[garment]
    return strip[from_person >= np.quantile(from_person, 0.9)]


def _color_at(lab: np.ndarray, face: Face, point: tuple[float, float]) -> np.ndarray:
    """Return the median color around a point of the canonical crop."""
    to_image = np.linalg.inv(np.vstack([crop_matrix(face.landmarks, 1), [0, 0, 1]]))[:2]
    x, y = np.clip(np.round(to_image @ (*point, 1)).astype(int), 2, SIDE - 3)
    return np.median(lab[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3), axis=0)


def _distance_to_nearest(colors: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.linalg.norm(colors[:, None] - others[None], axis=2).min(axis=1)


def _lab(rgb: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _soft_histogram(unit: np.ndarray, bins: tuple[int, ...], weights: np.ndarray | None = None) -> np.ndarray:
    """Return the shares of points in [0, 1] over a grid, each divided among its neighboring bins.

    Args:
        unit: (n, d).
        bins: number of bins in each of the d dimensions.
        weights: weight of each point, 1 by default.
    """
    top = np.array(bins) - 1
    place = np.clip(unit * top, 0, top - 1e-6)
    low = place.astype(int)
    high = place - low
    total = np.zeros(bins)
    for corner in np.ndindex(*(2,) * len(bins)):
        share = np.prod(np.where(np.array(corner) == 1, high, 1 - high), axis=1)
        np.add.at(total, tuple((low + corner).T), share if weights is None else share * weights)
    return total.ravel() / max(len(unit), 1)
