"""What a portrait shows of a picture, and cutting it out."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from valentina_pipeline.image.faces.detection import Face
from valentina_pipeline.image.faces.embedding import LEFT_EYE, RIGHT_EYE

Policy = Literal["face", "bust", "full"]

POLICIES = {"face": (1.0, 0.0), "bust": (1.8, 0.16)}
"""How much wider than a face's crop, and how far below the face its middle lies, as a share of its side."""

TIGHTEST = 6 / 7
"""A crop may be this much narrower than asked for, rather than show what is not in the picture."""


@dataclass(frozen=True)
class Crop:
    """A part of a picture: its centre (x, y), width and height in pixels, turned by `angle` radians."""

    centre: tuple[float, float]
    width: float
    height: float
    angle: float

    def visible_size(self, size: int) -> tuple[int, int]:
        """Return width and height of `size` x `size` pixels in the proportions of the crop."""
        long = (self.width / self.height) ** 0.5
        return max(1, round(size * long)), max(1, round(size / long))

    def matrix(self, shown: tuple[int, int]) -> np.ndarray:
        """Return float64 (2, 3): picture -> pixels of the crop drawn at this width and height."""
        x, y = shown[0] / self.width, shown[1] / self.height
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[cos * x, sin * x], [-sin * y, cos * y]])
        # pixel centres lie at whole numbers: the middle of n pixels is (n - 1) / 2
        return np.column_stack([turn, (np.array(shown) - 1) / 2 - turn @ np.array(self.centre)])


def portrait_crop(face: Face, policy: Policy, margin: float, picture: tuple[int, int]) -> Crop:
    """Return what a portrait shows of a picture.

    Around a face it is a square in which the eyes are level, `margin` face heights wide, or up to a seventh
    less where only that fits in the picture, and moved inside where it would reach out. A bust is the same,
    wider and with the face in its upper part. In full, the picture stays as it is.

    Args:
        face: in pixels of the picture.
        policy: face, bust or full.
        margin: in face heights.
        picture: width and height in pixels.
    """
    if policy == "full":
        return Crop(((picture[0] - 1) / 2, (picture[1] - 1) / 2), *picture, 0.0)
    wider, below = POLICIES[policy]
    x0, y0, x1, y1 = face.box
    asked = margin * wider * face.height
    side = max(min(asked, *picture), TIGHTEST * asked)
    down = below * side
    x, y = (
        float(np.clip((low + high) / 2, side / 2, extent - side / 2)) if side <= extent else (low + high) / 2
        for low, high, extent in ((x0, x1, picture[0]), (y0 + down, y1 + down, picture[1]))
    )
    across = face.landmarks[RIGHT_EYE] - face.landmarks[LEFT_EYE]
    angle = float(np.arctan2(across[1], across[0]))
    return Crop((x, y), side, side, angle)


def apply_crop(image: Image.Image, crop: Crop, size: int, linear: bool = False) -> Image.Image:
    """Return the crop at `size` x `size` pixels in its own proportions, RGB, free of aliasing.

    Where it reaches outside, the picture's edge goes on: mirroring would show hair a second time.

    Args:
        image: of any mode.
        crop: in pixels of it.
        size: see `Crop.shown`.
        linear: for masks: sharper filters overshoot, and black beside white would no longer be black.
    """
    import cv2

    shown = crop.visible_size(size)
    native = crop.visible_size(min(max(round((crop.width * crop.height) ** 0.5), 1), 8192))
    matrix = crop.matrix(native)
    # only the part that is seen: OpenCV warps no picture of more than 32,767 pixels a side
    (x, y), reach = crop.centre, max(crop.width, crop.height) * 0.75 + 4
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
    """Return the face in pixels of its portrait; the box keeps its proportions about its centre."""
    shown = crop.visible_size(size)
    matrix = crop.matrix(shown)
    landmarks = np.round(face.landmarks @ matrix[:, :2].T + matrix[:, 2], 2)
    half = (
        np.array([face.box[2] - face.box[0], face.height]) / 2 * shown / np.array([crop.width, crop.height])
    )
    middle = np.array([face.box[0] + face.box[2], face.box[1] + face.box[3]]) / 2
    centre = matrix[:, :2] @ middle + matrix[:, 2]
    x0, y0, x1, y1 = (float(v) for v in np.round([*(centre - half), *(centre + half)], 2))
    return Face((x0, y0, x1, y1), face.probability, landmarks)
