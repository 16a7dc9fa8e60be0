"""Models that score images: faces, CLIP and content."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from valentina_pipeline.common.missing_model import located
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.image.faces.similarity import FaceJudge, Find

if TYPE_CHECKING:
    pass


class ContentJudge(Protocol):
    """What compares pictures with words and with each other: image/models/clip.py's Clip."""

    def images(self, images: list[Image.Image]) -> np.ndarray:
        """Return (n, d), each of norm 1."""

    def texts(self, texts: list[str]) -> np.ndarray:
        """Return (n, d), each of norm 1."""


@dataclass(frozen=True)
class Judges:
    """The networks that look at pictures."""

    find: Find
    faces: FaceJudge
    clip: ContentJudge


def load_judges(base: BaseConfig, root: Path) -> Judges:
    """Return the judges that a base names; relative paths count from `root`.

    Raises:
        MissingModel: one of them is not on this machine.
    """
    from valentina_pipeline.image.faces.detection import find_faces
    from valentina_pipeline.image.faces.embedding import embedder
    from valentina_pipeline.image.models.clip import load_clip

    faces, clip = base.face_embedder, base.clip
    return Judges(
        find_faces,
        embedder(faces.kind, located(faces.path, root)),
        load_clip(clip.kind, located(clip.path, root)),
    )
