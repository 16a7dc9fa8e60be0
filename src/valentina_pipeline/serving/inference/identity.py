"""Scores of generated images: likeness to the character's portraits, and attributes of the prompt."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from valentina_pipeline.common.missing_model import MissingModelError, resolve_path
from valentina_pipeline.domain.artifacts import FACES_FILE
from valentina_pipeline.serving.inference.package import PackageInfo

if TYPE_CHECKING:
    from PIL.Image import Image

    from valentina_pipeline.image.evaluate.attributes import AttributeJudges
    from valentina_pipeline.image.faces.detection import Face
    from valentina_pipeline.image.faces.similarity import FaceJudge, Find

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AttributeReading:
    """A requested attribute, and what a judge sees in the image.

    Attributes:
        name: such as "color of the clothes".
        requested: the prompt's word.
        seen: the judge's word, or "not visible".
    """

    name: str
    requested: str
    seen: str


@dataclass(frozen=True)
class IdentityScorer:
    """Compares faces with the character's held-out portraits, and attributes with the prompt.

    Attributes:
        known: float64 (1, d), the mean of their identity vectors.
        find: detects faces.
        faces: computes identity vectors.
        attributes: judges of attributes; None on a base model without them.
    """

    known: np.ndarray
    find: "Find"
    faces: "FaceJudge"
    attributes: "AttributeJudges | None" = None

    def score(self, image: "Image", prompt: str) -> tuple[float | None, tuple[AttributeReading, ...]]:
        """Return the likeness of the largest face, and the readings of the attributes that the prompt names.

        The likeness is the cosine similarity to the portraits; None without a face.
        """
        from valentina_pipeline.image.faces.similarity import identity_similarity, main_face

        face, _ = main_face(image, self.find)
        readings = tuple(self._read(image, face, prompt)) if self.attributes else ()
        if face is None:
            return None, readings
        return round(float(identity_similarity(image, [face], self.known, self.faces)[0]), 4), readings

    def _read(self, image: "Image", face: "Face | None", prompt: str) -> Iterator[AttributeReading]:
        from valentina_pipeline.image.evaluate.attributes import FIELDS, NOT_VISIBLE, requested_attributes

        seen = self.attributes.read(image, face) if self.attributes else {}
        for field, word in requested_attributes(prompt).items():
            yield AttributeReading(FIELDS[field], word, seen.get(field, NOT_VISIBLE))

    def all_of(self, image: "Image") -> Sequence[float]:
        """Return the cosine similarity of each face to the portraits, largest face first."""
        from valentina_pipeline.image.faces.similarity import confident_faces, identity_similarity

        faces = confident_faces(self.find([image])[0])
        return (
            [float(score) for score in identity_similarity(image, faces, self.known, self.faces)]
            if faces
            else []
        )


def load_identity_scorer(about: PackageInfo, root: Path | None = None) -> IdentityScorer | None:
    """Return the scorer of a package's character.

    Returns None where identity was not measured, or where this machine lacks the networks.

    Args:
        about: the package.
        root: the parent of a relative path of the face embedder; None is the working directory.
    """
    if about.identity is None:
        logger.warning(
            "images are not compared with %s's portraits: the package has no identity measurement", about.name
        )
        return None
    try:
        from valentina_pipeline.image.faces.detection import detect_faces
        from valentina_pipeline.image.faces.embedding import load_face_embedder

        bundled, embedder = about.folder / FACES_FILE, about.base.face_embedder
        path = str(bundled) if bundled.is_file() else resolve_path(embedder.path, root or Path.cwd())
        return IdentityScorer(
            np.array([about.identity.mean]),
            detect_faces,
            load_face_embedder(embedder.kind, path),
            _load_judges(about.folder),
        )
    except MissingModelError as err:
        logger.warning("images are not compared with %s's portraits: %s", about.name, err)
        return None


def _load_judges(folder: Path) -> "AttributeJudges | None":
    """Return the package's judges of attributes, None where it has none."""
    from valentina_pipeline.image.evaluate.attributes import AttributeJudges

    file = folder / "judges.json"
    return AttributeJudges.from_json(json.loads(file.read_text("utf-8"))) if file.is_file() else None
