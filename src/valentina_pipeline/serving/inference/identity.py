"""Whether a drawn face is the character's."""

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
        find: finds faces.
        faces: turns them into identity vectors.
    """

    known: np.ndarray
    find: "Find"
    faces: "FaceJudge"

    def score(self, image: "Image") -> float | None:
        """Return the cosine of the picture's largest face to her portraits, None where it shows none."""
        from valentina_pipeline.image.faces.similarity import face_scores

        score = face_scores(image, self.known, self.find, self.faces)["identity"]
        return None if np.isnan(score) else round(score, 4)

    def all_of(self, image: "Image") -> Sequence[float]:
        """Return that of every face in a picture, the largest first."""
        from valentina_pipeline.image.faces.similarity import confident_faces, identity_similarity

        certain = confident_faces(self.find([image])[0])
        return (
            [float(each) for each in identity_similarity(image, certain, self.known, self.faces)]
            if certain
            else []
        )


def load_identity_scorer(about: PackageInfo, root: Path | None = None) -> IdentityScorer | None:
    """Return what compares faces with a package's character.

    None where nothing was measured, or this machine lacks the networks.

    Args:
        about: the package.
        root: what a relative path of the face embedder counts from; None is the working directory.
    """
    if about.identity is None:
        logger.warning("images are not compared with %s's portraits: it was not measured", about.name)
        return None
    try:
        from valentina_pipeline.image.faces.detection import detect_faces
        from valentina_pipeline.image.faces.embedding import load_face_embedder

        own, chosen = about.folder / FACES_FILE, about.base.face_embedder
        path = str(own) if own.is_file() else resolve_path(chosen.path, root or Path.cwd())
        return IdentityScorer(
            np.array([about.identity.mean]), detect_faces, load_face_embedder(chosen.kind, path)
        )
    except MissingModelError as err:
        logger.warning("images are not compared with %s's portraits: %s", about.name, err)
        return None
