"""Portrait crop: its position, size and rotation, and its application to images, masks and landmarks."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from valentina_pipeline.image.faces.detection import Face
from valentina_pipeline.image.faces.embedding import LEFT_EYE, RIGHT_EYE

Policy = Literal["face", "bust", "full"]

POLICIES = {"face": (1.0, 0.0), "bust": (1.8, 0.16)}
"""Policy -> width relative to a face crop, and offset of its center below the face as a share of its side."""

MIN_WIDTH_SHARE = 6 / 7
"""Minimum share of the requested width: a crop shrinks so far rather than exceed the image."""


@dataclass(frozen=True)
class Crop:
    """A part of an image: its center (x, y), width and height in pixels, rotated by `angle` radians."""

    center: tuple[float, float]
    width: float
    height: float
    angle: float

    def visible_size(self, size: int) -> tuple[int, int]:
        """Return width and height with the crop's aspect ratio and the area of about `size` x `size`."""
        long = (self.width / self.height) ** 0.5
        return max(1, round(size * long)), max(1, round(size / long))

    def matrix(self, shown: tuple[int, int]) -> np.ndarray:
        """Return float64 (2, 3): image pixels -> crop pixels at this width and height."""
        x, y = shown[0] / self.width, shown[1] / self.height
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[cos * x, sin * x], [-sin * y, cos * y]])
        # pixel centers are integers: the middle of n pixels is (n - 1) / 2
        return np.column_stack([turn, (np.array(shown) - 1) / 2 - turn @ np.array(self.center)])


def portrait_crop(face: Face, policy: Policy, margin: float, picture: tuple[int, int]) -> Crop:
    """Return the crop of a portrait.

    "face" is a square with level eyes, `margin` face heights wide. It shrinks by up to a seventh and moves
    so that it stays inside the image. "bust" is wider, with the face in its upper part. "full" is the whole
    image.

    Args:
        face: in pixels of the image.
        policy: face, bust or full.
        margin: width of a face crop in face heights.
        picture: width and height of the image in pixels.
    """
    if policy == "full":
        return Crop(((picture[0] - 1) / 2, (picture[1] - 1) / 2), *picture, 0.0)
    wider, below = POLICIES[policy]
    x0, y0, x1, y1 = face.box
    requested = margin * wider * face.height
    side = max(min(requested, *picture), MIN_WIDTH_SHARE * requested)
    down = below * side
    x, y = (
        float(np.clip((low + high) / 2, side / 2, extent - side / 2)) if side <= extent else (low + high) / 2
        for low, high, extent in ((x0, x1, picture[0]), (y0 + down, y1 + down, picture[1]))
    )
    across = face.landmarks[RIGHT_EYE] - face.landmarks[LEFT_EYE]
    angle = float(np.arctan2(across[1], across[0]))
    return Crop((x, y), side, side, angle)


def apply_crop(image: Image.Image, crop: Crop, size: int, linear: bool = False) -> Image.Image:
    """Return the cropped RGB image in its own aspect ratio, without aliasing.

    Outside the image, the edge pixels are repeated: mirroring would show hair twice.

    Args:
        image: image of any mode.
        crop: in pixels of the image.
        size: see `Crop.visible_size`.
        linear: use linear filters, for masks: sharper ones overshoot, so black would not stay black.
    """
    import cv2

    shown = crop.visible_size(size)
    native = crop.visible_size(min(max(round((crop.width * crop.height) ** 0.5), 1), 8192))
    matrix = crop.matrix(native)
    # cut the visible part first: OpenCV cannot warp images of more than 32,767 pixels a side
    (x, y), reach = crop.center, max(crop.width, crop.height) * 0.75 + 4
    left, top = max(0, int(x - reach)), max(0, int(y - reach))
    right, bottom = min(image.width, int(x + reach)), min(image.height, int(y + reach))
    part = image.convert("RGB").crop((left, top, right, bottom))
    matrix[:, 2] += matrix[:, :2] @ np.array([left, top])
    pixels = cv2.warpAffine(
        np.asarray(part),
        matrix,
        native,
        flags=cv2.INTER_LINEAR if linear else cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    filter_ = Image.Resampling.BILINEAR if linear else Image.Resampling.LANCZOS
    return Image.fromarray(pixels).resize(shown, filter_)


def transform_face(face: Face, crop: Crop, size: int) -> Face:
    """Return the face in pixels of its portrait; the box keeps its aspect ratio around its center."""
    shown = crop.visible_size(size)
    matrix = crop.matrix(shown)
    landmarks = np.round(face.landmarks @ matrix[:, :2].T + matrix[:, 2], 2)
    half = (
        np.array([face.box[2] - face.box[0], face.height]) / 2 * shown / np.array([crop.width, crop.height])
    )
    middle = np.array([face.box[0] + face.box[2], face.box[1] + face.box[3]]) / 2
    center = matrix[:, :2] @ middle + matrix[:, 2]
    x0, y0, x1, y1 = (float(v) for v in np.round([*(center - half), *(center + half)], 2))
    return Face((x0, y0, x1, y1), face.probability, landmarks)
