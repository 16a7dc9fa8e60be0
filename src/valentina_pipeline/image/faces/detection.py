"""Face detection by MTCNN."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from facenet_pytorch import MTCNN
from valentina_pipeline.common.threads import one_thread

LONGEST_SEARCHED = 640
"""Pixels: larger pictures are shrunk before the search; a main face stays far above MTCNN's 20 px."""


@dataclass(frozen=True)
class Face:
    """A detected face, in pixels of its picture.

    Attributes:
        box: (x0, y0, x1, y1).
        probability: MTCNN's, in [0, 1].
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
    """Return each picture's faces, the largest first, an empty list where there is none.

    Pictures are searched one by one on one thread, so that a face's figures depend on neither its
    neighbours nor the machine's number of cores; they are rounded to 1/100 px for the same reason.
    """
    with one_thread():
        return [_faces(image) for image in images]


def _faces(image: Image.Image) -> list[Face]:
    shrink = max(1.0, max(image.size) / LONGEST_SEARCHED)
    size = (round(image.width / shrink), round(image.height / shrink))
    searched = image.convert("RGB")
    if shrink > 1:
        searched = searched.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    if min(size) < 20:  # below MTCNN's smallest face its pyramid is empty
        return []
    try:
        boxes, probabilities, points = _detector(max(20, min(size) // 16)).detect(searched, landmarks=True)
    except (RuntimeError, IndexError) as err:
        # facenet-pytorch stumbles when its first network's boxes all lie outside: there is no face
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
