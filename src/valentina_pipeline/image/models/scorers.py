"""Models that score images: face detection, face embedding and CLIP."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from valentina_pipeline.common.missing_model import resolve_path
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.image.faces.similarity import FaceJudge, Find


class ContentScorer(Protocol):
    """Embeds images and texts in one space, as the class Clip in image/models/clip.py."""

    def images(self, images: list[Image.Image]) -> np.ndarray:
        """Return image embeddings (n, d) of norm 1."""

    def texts(self, texts: list[str]) -> np.ndarray:
        """Return text embeddings (n, d) of norm 1."""


@dataclass(frozen=True)
class Scorers:
    """Models that score images: face detector, face embedder and CLIP."""

    find: Find
    faces: FaceJudge
    clip: ContentScorer


def load_scorers(base: BaseConfig, root: Path) -> Scorers:
    """Load the scorers of a base model's configuration; paths are relative to `root`.

    Raises:
        MissingModelError: one of them is not on this machine.
    """
    from valentina_pipeline.image.faces.detection import detect_faces
    from valentina_pipeline.image.faces.embedding import load_face_embedder
    from valentina_pipeline.image.models.clip import load_clip

    faces, clip = base.face_embedder, base.clip
    return Scorers(
        detect_faces,
        load_face_embedder(faces.kind, resolve_path(faces.path, root)),
        load_clip(clip.kind, resolve_path(clip.path, root)),
    )
