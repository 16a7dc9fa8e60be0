"""Face detection by MTCNN."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from valentina_pipeline.common.threads import one_thread

if TYPE_CHECKING:
    from facenet_pytorch import MTCNN

MAX_SIDE = 640
"""Pixels: larger images are reduced before detection; a main face stays far above MTCNN's minimum, 20 px."""


@dataclass(frozen=True)
class Face:
    """A detected face, in pixels of its image.

    Attributes:
        box: (x0, y0, x1, y1).
        probability: MTCNN's confidence in [0, 1].
        landmarks: float64 (5, 2): eyes, nose, mouth corners.
    """

    box: tuple[float, float, float, float]
    probability: float
    landmarks: np.ndarray

    @property
    def height(self) -> float:
        """The box's height in pixels."""
        return self.box[3] - self.box[1]

    @property
    def area(self) -> float:
        """The box's area in square pixels."""
        return (self.box[2] - self.box[0]) * self.height


def detect_faces(images: Iterable[Image.Image]) -> list[list[Face]]:
    """Return the faces of each image, the largest first; an empty list where there is none.

    Images are processed one by one on one thread and coordinates are rounded to 1/100 px, so that a result
    depends neither on the other images nor on the number of CPU cores.
    """
    with one_thread():
        return [_faces(image) for image in images]


def _faces(image: Image.Image) -> list[Face]:
    shrink = max(1.0, max(image.size) / MAX_SIDE)
    size = (round(image.width / shrink), round(image.height / shrink))
    resized = image.convert("RGB")
    if shrink > 1:
        resized = resized.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    if min(size) < 20:  # MTCNN's image pyramid would be empty
        return []
    try:
        boxes, probabilities, points = _detector(max(20, min(size) // 16)).detect(resized, landmarks=True)
    except (RuntimeError, IndexError) as err:
        # facenet-pytorch fails when all boxes of its first network lie outside the image: there is no face
        if "non-empty list" not in str(err) and "shape of the mask" not in str(err):
            raise
        return []
    if boxes is None:
        return []
    scale = np.array(image.size) / np.array(size)
    found = zip(boxes.astype(float), probabilities.astype(float), points.astype(float), strict=True)
    return [_face(box, probability, landmarks, scale) for box, probability, landmarks in found]


def _face(box: np.ndarray, probability: float, landmarks: np.ndarray, scale: np.ndarray) -> Face:
    x0, y0, x1, y1 = (float(v) for v in np.round(box * np.tile(scale, 2), 2))
    return Face((x0, y0, x1, y1), round(float(probability), 6), np.round(landmarks * scale, 2))


@lru_cache(maxsize=8)
def _detector(min_face: int) -> "MTCNN":
    from facenet_pytorch import MTCNN

    return MTCNN(min_face_size=min_face, keep_all=True, device="cpu").eval()
