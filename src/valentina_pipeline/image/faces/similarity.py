"""Identity similarity of the faces in an image to a person's reference portraits."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from valentina_pipeline.image.faces.canonical_crop import face_crop
from valentina_pipeline.image.faces.detection import Face

FACE_PROBABILITY = 0.9
"""Minimum MTCNN probability at which a face in a generated image counts as found."""

Find = Callable[[Iterable[Image.Image]], list[list[Face]]]
"""Signature of `detect_faces` in image/faces/detection.py."""


class FaceJudge(Protocol):
    """Interface of a face embedder, see FaceEmbedder in image/faces/embedding.py."""

    @property
    def size(self) -> int:
        """Width and height of the input crops in pixels."""

    def embed(self, crops: Sequence[Image.Image]) -> np.ndarray:
        """Return float32 (n, d), each of norm 1."""


def face_scores(image: Image.Image, known: np.ndarray, find: Find, faces: FaceJudge) -> dict[str, float]:
    """Return the identity (mean cosine of the largest face to `known`, (n, d)) and face_probability.

    Without a confident face identity is NaN.
    """
    face, probability = main_face(image, find)
    if face is None:
        return {"identity": float("nan"), "face_probability": probability}
    identity = float(identity_similarity(image, [face], known, faces)[0])
    return {"identity": identity, "face_probability": probability}


def main_face(image: Image.Image, find: Find) -> tuple[Face | None, float]:
    """Return the largest confident face, or None, and its probability, else the highest of all faces."""
    found = find([image])[0]
    if certain := confident_faces(found):
        return certain[0], certain[0].probability
    return None, max((face.probability for face in found), default=0.0)


def confident_faces(found: Sequence[Face]) -> list[Face]:
    """Return the faces that reach FACE_PROBABILITY, in their order."""
    return [face for face in found if face.probability >= FACE_PROBABILITY]


def identity_similarity(
    image: Image.Image, found: Sequence[Face], known: np.ndarray, faces: FaceJudge
) -> np.ndarray:
    """Return float64 (m,): the mean cosine of each of the m faces of an image to `known` (n, d)."""
    return (embed_faces(image, found, faces) @ known.T).mean(axis=1)


def embed_faces(image: Image.Image, found: Sequence[Face], faces: FaceJudge) -> np.ndarray:
    """Return float64 (m, d), each of norm 1: the vectors of the m faces of an image."""
    return faces.embed([face_crop(image, face, faces.size) for face in found]).astype(np.float64)
