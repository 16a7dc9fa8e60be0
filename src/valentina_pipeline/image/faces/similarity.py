"""How like a person's known portraits the face in a picture is."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from valentina_pipeline.image.faces.crop import face_crop
from valentina_pipeline.image.faces.detection import Face

FACE_PROBABILITY = 0.9
"""MTCNN's, from which a drawn face counts as found."""

Find = Callable[[Iterable[Image.Image]], list[list[Face]]]
"""image/faces/crop.py's find_faces."""


class FaceJudge(Protocol):
    """What turns face crops into identity vectors: image/faces/crop.py's FaceEmbedder."""

    @property
    def size(self) -> int:
        """Width and height in pixels of the crops that it wants."""

    def embed(self, crops: Sequence[Image.Image]) -> np.ndarray:
        """Return float32 (n, d), each of norm 1."""


def face_scores(image: Image.Image, known: np.ndarray, find: Find, faces: FaceJudge) -> dict[str, float]:
    """Return identity, the largest face's mean cosine to `known` (n, d), and face_probability.

    Without a sure face identity is NaN.
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
    """Return the faces that count as found, in the order given."""
    return [face for face in found if face.probability >= FACE_PROBABILITY]


def identity_similarity(
    image: Image.Image, found: Sequence[Face], known: np.ndarray, faces: FaceJudge
) -> np.ndarray:
    """Return float64 (m,): the mean cosine to `known` (n, d) of each of m faces found in a picture."""
    vectors = faces.embed([face_crop(image, face, faces.size) for face in found]).astype(np.float64)
    return (vectors @ known.T).mean(axis=1)
