"""Scores of a generated image: identity, CLIP-T, CLIP-I, nearest training portrait, the panel's readings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from valentina_pipeline.domain.manifest import TRAIN
from valentina_pipeline.image.evaluate.attributes import (
    FIELDS,
    compare_attributes,
    describe_missed,
    requested_attributes,
)
from valentina_pipeline.image.evaluate.identity_judge import IdentityJudge, similarity_to_others
from valentina_pipeline.image.evaluate.prompts import PlannedImage
from valentina_pipeline.image.faces.similarity import embed_faces, main_face
from valentina_pipeline.image.models.scorers import ContentScorer, Scorers

if TYPE_CHECKING:
    import pandas as pd

    from valentina_pipeline.image.evaluate.panel import Panel

LAYOUT_SIDE = 16
"""Side in pixels of the layout vector: pose, framing and colors remain, texture does not."""

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
    "memorized",
    "identity_training",
    "identity_dlib",
    "rank",
    "missed",
    *(f"shows_{field}" for field in FIELDS),
)
"""Columns of image_scores. Those from `identity_dlib` on are empty without a panel; `shows_` is 1 or 0, and
empty where the prompt does not request the attribute."""


class NothingToMeasureError(ValueError):
    """There are no reference portraits, or no images to measure."""


@dataclass(frozen=True)
class Portraits:
    """Embeddings of the character's n real portraits.

    Attributes:
        names: n sha256.
        identity: face embeddings (n, d), norm 1.
        content: CLIP image embeddings (n, e), norm 1.
        layout: layout vectors (n, 3 * LAYOUT_SIDE ** 2), norm 1.
        trained: bool (n,): True for training portraits, False for held-out references.
        independent: vectors of the panel's independent judge (n, k), norm 1; NaN where it finds no face. None
            without that judge.
    """

    names: tuple[str, ...]
    identity: np.ndarray
    content: np.ndarray
    layout: np.ndarray
    trained: np.ndarray
    independent: np.ndarray | None = None

    @property
    def references(self) -> np.ndarray:
        """Indices of the held-out portraits."""
        return np.flatnonzero(~self.trained)

    @property
    def training(self) -> np.ndarray:
        """Indices of the training portraits."""
        return np.flatnonzero(self.trained)


@dataclass(frozen=True)
class ScoredImages:
    """Generated images with their scores.

    Attributes:
        planned: the n planned images.
        scores: one row per image, SCORE_COLUMNS; `identity` is NaN where no face was found.
        content: CLIP image embeddings (n, e), norm 1.
    """

    planned: tuple[PlannedImage, ...]
    scores: "pd.DataFrame"
    content: np.ndarray


def portraits(
    aligned: Mapping[str, Image.Image],
    faces: "pd.DataFrame",
    clip: ContentScorer,
    judge: IdentityJudge | None = None,
) -> Portraits:
    """Return the embeddings of the accepted portraits.

    Args:
        aligned: portraits by sha256.
        faces: the table of faces from align, with embedding, accepted and split.
        clip: the CLIP model of CLIP-I.
        judge: independent identity judge.

    Raises:
        NothingToMeasureError: no portrait is held out, or none is for training.
    """
    accepted = faces[faces["accepted"].astype(bool)].sort_values("sha256")
    trained = (accepted["split"] == TRAIN).to_numpy(dtype=bool)
    if trained.all() or not trained.any():
        missing = "held out" if trained.all() else "for training"
        raise NothingToMeasureError(
            f"none of {len(accepted)} aligned portraits is {missing}: add portraits to the source"
        )
    names = tuple(accepted["sha256"])
    identity = np.stack([np.asarray(e, np.float64) for e in accepted["embedding"]])
    content = np.concatenate([clip.images([aligned[name]]) for name in names]).astype(np.float64)
    layout = np.stack([layout_vector(aligned[name]) for name in names])
    independent = judge.vectors([aligned[name] for name in names]) if judge else None
    return Portraits(names, identity, content, layout, trained, independent)


def layout_vector(image: Image.Image) -> np.ndarray:
    """Return the layout vector: float64 (3 * LAYOUT_SIDE ** 2,), the reduced image, mean 0, norm 1 (or 0)."""
    small = image.convert("RGB").resize((LAYOUT_SIDE, LAYOUT_SIDE), Image.Resampling.BOX)
    values = np.asarray(small, np.float64).ravel()
    centered = values - values.mean()
    return centered / max(float(np.linalg.norm(centered)), 1e-9)


def score_images(
    generated: Iterable[tuple[PlannedImage, Image.Image]],
    class_word: str,
    real: Portraits,
    judges: Scorers,
    panel: "Panel | None" = None,
) -> ScoredImages:
    """Score every generated image.

    CLIP-T uses the same text for all variants, the prompt with `class_word` as subject, so that trigger and
    description do not favor a variant.

    Args:
        generated: planned images with their pixels.
        class_word: subject of the texts of CLIP-T.
        real: the character's portraits.
        judges: scoring models.
        panel: judges of attributes, and strangers; None on a base model that they do not know.

    Raises:
        NothingToMeasureError: there is no image.
    """
    import pandas as pd

    rows, content, done = [], [], []
    limits = copy_limits(real)
    texts: dict[int, np.ndarray] = {}
    for plan, image in generated:
        number = plan.prompt.number
        if number not in texts:
            texts[number] = judges.clip.texts([plan.prompt.text(class_word)])[0].astype(np.float64)
        embedding = judges.clip.images([image])[0].astype(np.float64)
        rows.append(
            {
                "name": plan.name,
                "variant": plan.variant,
                "prompt": plan.prompt.scene,
                "seed": plan.seed,
                **_read_person(image, plan.prompt.scene, real, judges, panel),
                "clip_t": float(embedding @ texts[number]),
                "clip_i": float((real.content[real.references] @ embedding).mean()),
                **_nearest(embedding, layout_vector(image), real, limits),
            }
        )
        content.append(embedding)
        done.append(plan)
    if not rows:
        raise NothingToMeasureError("no image to measure: all were rejected")
    scores = pd.DataFrame(rows, columns=list(SCORE_COLUMNS)).round(6)
    return ScoredImages(tuple(done), scores, np.stack(content))


def _read_person(
    image: Image.Image, scene: str, real: Portraits, judges: Scorers, panel: "Panel | None"
) -> dict[str, object]:
    """Return the scores of the main face, and the panel's readings."""
    face, probability = main_face(image, judges.find)
    row: dict[str, object] = {"identity": np.nan, "face_probability": probability}
    if face is not None:
        vector = embed_faces(image, [face], judges.faces)
        references = real.identity[real.references]
        row["identity"] = float((vector @ references.T).mean(axis=1)[0])
        row["identity_training"] = float((vector @ real.identity[real.training].T).mean(axis=1)[0])
        if panel:
            row["rank"] = panel.rank(vector[0], references)
    if panel and panel.independent and real.independent is not None:
        vectors = panel.independent.vectors([image])
        row["identity_dlib"] = similarity_to_others(vectors, real.independent[real.references], [None])[0]
    if panel:
        requested = requested_attributes(scene)
        seen = panel.attributes.read(image, face, requested)
        found = compare_attributes(requested, seen)
        row["missed"] = describe_missed(requested, seen)
        row |= {f"shows_{field}": float(shown) for field, shown in found.items()}
    return row


def copy_limits(real: Portraits) -> tuple[float, float]:
    """Return the thresholds of content and layout similarity above which an image counts as a copy.

    Each is the 99th percentile, over all portraits of the character, of the similarity to the nearest other
    training portrait. It compares nearest neighbors with nearest neighbors: with the similarity of any two
    portraits, one in five original images would count as a copy.
    """
    return _nearest_similarity(real.content, real.trained), _nearest_similarity(real.layout, real.trained)


def _nearest_similarity(vectors: np.ndarray, trained: np.ndarray) -> float:
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = similarity[:, trained].max(axis=1)
    return float(np.quantile(nearest[np.isfinite(nearest)], COPY_QUANTILE))


def _nearest(
    content: np.ndarray, layout: np.ndarray, real: Portraits, limits: tuple[float, float]
) -> dict[str, object]:
    """Return the similarity to the nearest training portrait, and whether the image copies one.

    A copy is similar in both measures. An image of the same scene, as the prompt requests, is similar in
    content only; one of the same framing and colors is similar in layout only.
    """
    in_content = real.content[real.training] @ content
    in_layout = real.layout[real.training] @ layout
    nearest = int(in_content.argmax())
    return {
        "nearest_training": float(in_content[nearest]),
        "nearest_layout": float(in_layout[nearest]),
        "nearest_name": real.names[real.training[nearest]],
        "memorized": bool(((in_content > limits[0]) & (in_layout > limits[1])).any()),
    }


def ceiling(real: Portraits) -> np.ndarray:
    """Return (m,): each real portrait's mean cosine to the held-out portraits other than itself."""
    similarity = real.identity @ real.identity[real.references].T
    itself = np.arange(len(real.names))[:, None] == real.references[None, :]
    others = (~itself).sum(axis=1)
    means = np.where(itself, 0.0, similarity).sum(axis=1) / np.maximum(others, 1)
    return means[others > 0]
