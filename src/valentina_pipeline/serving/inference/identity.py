"""Identity scores: compare faces in generated images with the character's portraits."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from valentina_pipeline.common.missing_model import MissingModelError, resolve_path
from valentina_pipeline.domain.artifacts import FACES_FILE
from valentina_pipeline.serving.inference.package import PackageInfo

if TYPE_CHECKING:
    from PIL.Image import Image

    from valentina_pipeline.image.faces.similarity import FaceJudge, Find

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IdentityScorer:
    """Compares faces with the character's held-out portraits.

    Attributes:
        known: float64 (1, d), the mean of their identity vectors.
        find: detects faces.
        faces: computes identity vectors.
    """

    known: np.ndarray
    find: "Find"
    faces: "FaceJudge"

    def score(self, image: "Image") -> float | None:
        """Return the cosine similarity of the largest face to the portraits; None without a face."""
        from valentina_pipeline.image.faces.similarity import face_scores

        score = face_scores(image, self.known, self.find, self.faces)["identity"]
        return None if np.isnan(score) else round(score, 4)

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
            np.array([about.identity.mean]), detect_faces, load_face_embedder(embedder.kind, path)
        )
    except MissingModelError as err:
        logger.warning("images are not compared with %s's portraits: %s", about.name, err)
        return None
