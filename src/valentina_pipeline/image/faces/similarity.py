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
    found = find([image])[0]
    if not (certain := confident_faces(found)):
        return {
            "identity": float("nan"),
            "face_probability": max((f.probability for f in found), default=0.0),
        }
    identity = float(identity_similarity(image, certain[:1], known, faces)[0])
    return {"identity": identity, "face_probability": certain[0].probability}


def confident_faces(found: Sequence[Face]) -> list[Face]:
    """Return the faces that reach FACE_PROBABILITY, in their order."""
    return [face for face in found if face.probability >= FACE_PROBABILITY]


def identity_similarity(
    image: Image.Image, found: Sequence[Face], known: np.ndarray, faces: FaceJudge
) -> np.ndarray:
    """Return float64 (m,): the mean cosine of each of the m faces of an image to `known` (n, d)."""
    vectors = faces.embed([face_crop(image, face, faces.size) for face in found]).astype(np.float64)
    return (vectors @ known.T).mean(axis=1)
