"""One drawn image's scores: her face, the prompt's words, her portraits, and the nearest one trained on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from valentina_pipeline.domain.manifest import TRAIN
from valentina_pipeline.image.evaluate.prompts import PlannedImage
from valentina_pipeline.image.faces.similarity import face_scores

if TYPE_CHECKING:
    import pandas as pd
from valentina_pipeline.image.models.scorers import ContentScorer, Scorers

LAYOUT_SIDE = 16
"""Pixels: at this size a picture is its pose, framing and colours, without texture."""

COPY_QUANTILE = 0.99

SCORE_COLUMNS = (
    "name",
    "variant",
    "prompt",
    "seed",
    "identity",
    "face_probability",
    "clip_t",
    "clip_i",
    "nearest_training",
    "nearest_layout",
    "nearest_name",
    "memorised",
)


class NothingToMeasureError(ValueError):
    """There are no portraits to measure against, or no images to measure."""


@dataclass(frozen=True)
class Portraits:
    """Her real portraits as the judges see them, n of them.

    Attributes:
        names: n sha256.
        identity: (n, d), norm 1.
        content: CLIP's (n, e), norm 1.
        layout: (n, 3 * LAYOUT_SIDE ** 2), norm 1.
        trained: bool (n,): trained on; the others are the held-out references.
    """

    names: tuple[str, ...]
    identity: np.ndarray
    content: np.ndarray
    layout: np.ndarray
    trained: np.ndarray

    @property
    def references(self) -> np.ndarray:
        """Positions of the held-out portraits."""
        return np.flatnonzero(~self.trained)

    @property
    def training(self) -> np.ndarray:
        """Positions of the training portraits."""
        return np.flatnonzero(self.trained)


@dataclass(frozen=True)
class ScoredImages:
    """Drawn images with their scores.

    Attributes:
        takes: n of them.
        scores: one row a take, SCORE_COLUMNS; `identity` is NaN where no face was found.
        content: CLIP's (n, e), norm 1.
    """

    takes: tuple[PlannedImage, ...]
    scores: "pd.DataFrame"
    content: np.ndarray


def portraits(aligned: Mapping[str, Image.Image], faces: "pd.DataFrame", clip: ContentScorer) -> Portraits:
    """Return the kept portraits with what they are compared by.

    Args:
        aligned: by sha256.
        faces: align's rows, with embedding, kept and split.
        clip: the network behind CLIP-I.

    Raises:
        NothingToMeasureError: no portrait is held out, or none was trained on.
    """
    kept = faces[faces["kept"].astype(bool)].sort_values("sha256")
    trained = (kept["split"] == TRAIN).to_numpy(dtype=bool)
    if trained.all() or not trained.any():
        missing = "held out" if trained.all() else "trained on"
        raise NothingToMeasureError(
            f"of {len(kept)} aligned portraits none is {missing}: add portraits to the source"
        )
    names = tuple(kept["sha256"])
    identity = np.stack([np.asarray(e, np.float64) for e in kept["embedding"]])
    content = np.concatenate([clip.images([aligned[name]]) for name in names]).astype(np.float64)
    return Portraits(
        names, identity, content, np.stack([layout_vector(aligned[name]) for name in names]), trained
    )


def layout_vector(image: Image.Image) -> np.ndarray:
    """Return float64 (3 * LAYOUT_SIDE ** 2,): the picture far away, its mean removed, norm 1 (or 0)."""
    small = image.convert("RGB").resize((LAYOUT_SIDE, LAYOUT_SIDE), Image.Resampling.BOX)
    values = np.asarray(small, np.float64).ravel()
    centred = values - values.mean()
    return centred / max(float(np.linalg.norm(centred)), 1e-9)


def score_images(
    shown: Iterable[tuple[PlannedImage, Image.Image]], class_word: str, real: Portraits, judges: Scorers
) -> ScoredImages:
    """Score every drawn image.

    CLIP-T compares all variants with the same words, the prompt about `class_word`: neither trigger
    nor description counts for a variant that was given it.

    Raises:
        NothingToMeasureError: there is no image.
    """
    import pandas as pd

    rows, content, done = [], [], []
    limits = copy_limits(real)
    texts: dict[int, np.ndarray] = {}
    for take, image in shown:
        number = take.prompt.number
        if number not in texts:
            texts[number] = judges.clip.texts([take.prompt.text(class_word)])[0].astype(np.float64)
        seen = judges.clip.images([image])[0].astype(np.float64)
        rows.append(
            {
                "name": take.name,
                "variant": take.variant,
                "prompt": take.prompt.scene,
                "seed": take.seed,
                **face_scores(image, real.identity[real.references], judges.find, judges.faces),
                "clip_t": float(seen @ texts[number]),
                "clip_i": float((real.content[real.references] @ seen).mean()),
                **_nearest(seen, layout_vector(image), real, limits),
            }
        )
        content.append(seen)
        done.append(take)
    if not rows:
        raise NothingToMeasureError("no image to measure: all were left out")
    return ScoredImages(
        tuple(done), pd.DataFrame(rows, columns=list(SCORE_COLUMNS)).round(6), np.stack(content)
    )


def copy_limits(real: Portraits) -> tuple[float, float]:
    """Return how alike, in content and layout, a real portrait is to the nearest other that was trained on.

    Each is the 99th percentile over all her portraits. The nearest of many is compared with the nearest of
    many: against the likeness of any two, one honest image in five would pass for a copy.
    """
    return _nearest_likeness(real.content, real.trained), _nearest_likeness(real.layout, real.trained)


def _nearest_likeness(vectors: np.ndarray, trained: np.ndarray) -> float:
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    nearest = likeness[:, trained].max(axis=1)
    return float(np.quantile(nearest[np.isfinite(nearest)], COPY_QUANTILE))


def _nearest(
    content: np.ndarray, far: np.ndarray, real: Portraits, limits: tuple[float, float]
) -> dict[str, object]:
    """Return the likeness to the nearest training portrait, and whether the image copies one.

    A copy is alike in both: the same scene in words is alike in content only, and is what was asked for;
    the same framing and colours is alike in layout only.
    """
    in_content = real.content[real.training] @ content
    in_layout = real.layout[real.training] @ far
    nearest = int(in_content.argmax())
    return {
        "nearest_training": float(in_content[nearest]),
        "nearest_layout": float(in_layout[nearest]),
        "nearest_name": real.names[real.training[nearest]],
        "memorised": bool(((in_content > limits[0]) & (in_layout > limits[1])).any()),
    }


def ceiling(real: Portraits) -> np.ndarray:
    """Return (m,): each real portrait's mean cosine to the held-out ones, itself left out."""
    likeness = real.identity @ real.identity[real.references].T
    itself = np.arange(len(real.names))[:, None] == real.references[None, :]
    others = (~itself).sum(axis=1)
    means = np.where(itself, 0.0, likeness).sum(axis=1) / np.maximum(others, 1)
    return means[others > 0]
