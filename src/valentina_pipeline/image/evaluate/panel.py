"""Panel: judges of attributes, which no caption of the training images taught, and of identity.

It knows the embedded tiny base's rendered world only. `attributes` is the share of requested attributes that
the images show. `identification` tells whose template, the character's or a stranger's, is nearest to a face.
`identity_scale` places identity between strangers (0) and real portraits through the VAE (1), by the face
embedder and by an independent network. Real portraits, also through the VAE, are read the same way: judges'
misses there are their own errors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from valentina_pipeline.common.confidence_intervals import Bootstrap, percentile_interval
from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.image.evaluate.attributes import (
    FIELDS,
    AttributeJudges,
    AttributeReader,
    compare_attributes,
    requested_attributes,
)
from valentina_pipeline.image.evaluate.identity_judge import IdentityJudge, similarity_to_others
from valentina_pipeline.image.evaluate.scoring import Portraits, ScoredImages
from valentina_pipeline.image.faces.dlib_network import embed_main_face, is_installed
from valentina_pipeline.image.faces.similarity import embed_faces, main_face
from valentina_pipeline.image.models.scorers import Scorers

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Panel:
    """Judges of attributes, templates of strangers, and an independent identity judge.

    Attributes:
        attributes: judges of attributes.
        strangers: face templates of m other people, float64 (m, d), norm 1; none where the base model's world
            is not known.
        independent: identity judge that others trained; None where its packages are not installed.
    """

    attributes: AttributeReader
    strangers: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    independent: IdentityJudge | None = None

    def rank(self, vector: np.ndarray, references: np.ndarray) -> float:
        """Return the rank of the character among the strangers, 1 where it is the nearest; NaN without any.

        Args:
            vector: face vector of an image, (d,), norm 1.
            references: face vectors of the character, (n, d); their mean is the template.
        """
        if not len(self.strangers):
            return float("nan")
        template = references.mean(axis=0)
        own = float(vector @ template) / float(np.linalg.norm(template))
        return 1 + int((self.strangers @ vector > own).sum())

    def floors(self, real: Portraits) -> dict[str, float]:
        """Return the mean cosine of the strangers' templates to the held-out portraits, by judge."""
        if not len(self.strangers):
            return {}
        floors = {"embedder": float((self.strangers @ real.identity[real.references].T).mean())}
        if self.independent and real.independent is not None:
            references = real.independent[real.references]
            found = references[np.isfinite(references).all(axis=1)]
            floors["dlib"] = float((self.independent.strangers @ found.T).mean())
        return floors


def load_panel(values: Mapping[str, Any], embedder: Path) -> Panel | None:
    """Return the panel of tiny/judges.json; None if it was made with another face embedder."""
    if not embedder.is_file() or values["face_embedder"] != sha256(embedder):
        return None
    judge = IdentityJudge.from_json(embed_main_face, values["dlib"]) if is_installed() else None
    attributes = AttributeJudges.from_json(values["attributes"])
    return Panel(attributes, np.array(values["strangers"], np.float64), judge)


@dataclass(frozen=True)
class Readings:
    """The panel's readings of n images.

    Attributes:
        groups: resampling unit of each image: its prompt, or the portrait itself.
        shown: for each image, whether each requested attribute is seen.
        ranks: rank of the character among the strangers, (n,); NaN without a face.
        identity: mean cosine to the held-out portraits, (n,); NaN without a face.
        independent: the same by the independent judge, (n,); NaN without a face or without that judge.
    """

    groups: tuple[int, ...]
    shown: tuple[Mapping[str, bool], ...]
    ranks: np.ndarray
    identity: np.ndarray
    independent: np.ndarray


def generated_readings(measured: ScoredImages, variant: str) -> Readings:
    """Return the readings of one variant's images; prompts are the resampling units."""
    rows = [row for row, plan in enumerate(measured.planned) if plan.variant == variant]
    scores = measured.scores.iloc[rows]
    columns = {name: scores[f"shows_{name}"].to_numpy(np.float64) for name in FIELDS}
    return Readings(
        tuple(measured.planned[row].prompt.number for row in rows),
        tuple({f: v[i] == 1 for f, v in columns.items() if np.isfinite(v[i])} for i in range(len(rows))),
        scores["rank"].to_numpy(np.float64),
        scores["identity"].to_numpy(np.float64),
        scores["identity_dlib"].to_numpy(np.float64),
    )


def read_portraits(
    images: Sequence[Image.Image], captions: Sequence[str], real: Portraits, judges: Scorers, panel: Panel
) -> Readings:
    """Return the readings of real portraits, each against the held-out ones other than itself.

    Args:
        images: the portraits of `real`, in its order, possibly through the VAE.
        captions: their captions, which name the true attributes.
        real: embeddings of the portraits.
        judges: scoring models.
        panel: judges of attributes, and strangers.
    """
    shown, ranks, identity = [], [], []
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        face, _ = main_face(image, judges.find)
        requested = requested_attributes(caption)
        shown.append(compare_attributes(requested, panel.attributes.read(image, face, requested)))
        others = real.identity[real.references[real.references != index]]
        if face is None or not len(others):
            ranks.append(np.nan)
            identity.append(np.nan)
            continue
        vector = embed_faces(image, [face], judges.faces)[0]
        ranks.append(panel.rank(vector, others))
        identity.append(float((others @ vector).mean()))
    return Readings(
        tuple(range(len(images))),
        tuple(shown),
        np.array(ranks),
        np.array(identity),
        _read_independently(images, real, panel),
    )


def _read_independently(images: Sequence[Image.Image], real: Portraits, panel: Panel) -> np.ndarray:
    """Return the identity of real portraits by the independent judge, (n,)."""
    if panel.independent is None or real.independent is None:
        return np.full(len(images), np.nan)
    rows = {int(index): row for row, index in enumerate(real.references)}
    own = [rows.get(index) for index in range(len(images))]
    vectors = panel.independent.vectors(images)
    return similarity_to_others(vectors, real.independent[real.references], own)


def panel_metrics(
    readings: Mapping[str, Readings], panel: Panel, floors: Mapping[str, float], resamples: int, seed: int
) -> dict[str, Any]:
    """Return attributes, identification and identity by judge, each mean with its 95% interval.

    Attributes that no image was asked for are left out; `all` is the mean over an image's attributes.
    `attributes_drop` is the base model's `all` minus the LoRA's, over the same resamples of prompts.
    `identity_real_vae` is the identity of real portraits through the VAE, the most that a LoRA can reach.
    `identity_scale` has each judge's places of lora, base and real, the LoRA's lowest place (`lowest`) and
    its largest gain over the base model (`gain`).

    Args:
        readings: readings of lora, base, real, and real_vae, the real portraits through the VAE.
        panel: the panel that made them.
        floors: see Panel.floors.
        resamples: number of resamples behind each interval.
        seed: seed of the resampling.
    """
    boots = {name: Bootstrap.draw(read.groups, resamples, seed) for name, read in readings.items()}

    def shares(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {
            name: boots[name].mean_with_interval(values[name], read.groups).as_json()
            for name, read in readings.items()
        }

    attributes: dict[str, Any] = {}
    for name in FIELDS:
        values = {images: _share_shown(read.shown, (name,)) for images, read in readings.items()}
        if any(np.isfinite(column).any() for column in values.values()):
            attributes[name] = shares(values)
            if name in panel.attributes.accuracy:
                attributes[name]["strangers"] = panel.attributes.accuracy[name]
    shown = {name: _share_shown(read.shown, FIELDS) for name, read in readings.items()}
    attributes["all"] = shares(shown)
    lora, base = (boots[name].resample_means(shown[name], readings[name].groups) for name in ("lora", "base"))
    drop = attributes["all"]["base"]["mean"] - attributes["all"]["lora"]["mean"]
    identity = {"embedder": shares({name: read.identity for name, read in readings.items()})}
    metrics: dict[str, Any] = {
        "attributes": attributes,
        "attributes_drop": percentile_interval(drop, base - lora).as_json(),
        "identity_real_vae": identity["embedder"]["real_vae"],
    }
    if not floors:
        return metrics
    nearest = shares({name: (read.ranks == 1).astype(float) for name, read in readings.items()})
    for name, read in readings.items():
        ranks = read.ranks[np.isfinite(read.ranks)]
        nearest[name]["mean_rank"] = float(ranks.mean()) if ranks.size else float(len(panel.strangers) + 1)
    if "dlib" in floors:
        identity["dlib"] = shares({name: read.independent for name, read in readings.items()})
    scale: dict[str, Any] = {n: _place_on_scale(values, floors[n]) for n, values in identity.items()}
    judged = list(scale.values())
    scale["lowest"] = min(places["lora"]["mean"] for places in judged)
    scale["gain"] = max(places["lora"]["mean"] - places["base"]["mean"] for places in judged)
    metrics["identity_scale"] = scale
    metrics["identification"] = {"num_strangers": len(panel.strangers), **nearest}
    if "dlib" in floors:
        metrics["identity_dlib"] = {**identity["dlib"], "strangers": floors["dlib"]}
    return metrics


def _place_on_scale(identity: Mapping[str, Mapping[str, float]], floor: float) -> dict[str, dict[str, float]]:
    """Return lora, base and real between `floor` (0) and the mean of real_vae (1)."""
    width = max(identity["real_vae"]["mean"] - floor, 1e-6)
    return {
        name: {bound: (value - floor) / width for bound, value in identity[name].items()}
        for name in ("lora", "base", "real")
    }


def _share_shown(shown: Sequence[Mapping[str, bool]], fields: Iterable[str]) -> np.ndarray:
    """Return for each image the share of these fields that it shows, NaN where none was requested."""
    columns = [[found[name] for name in fields if name in found] for found in shown]
    return np.array([float(np.mean(column)) if column else np.nan for column in columns])


def reconstruct(vae: Any, images: Sequence[Image.Image]) -> list[Image.Image]:
    """Return RGB images after one pass through a VAE, one by one: the detail that latents can hold."""
    import torch

    from valentina_pipeline.image.generate.generate import decode_latents
    from valentina_pipeline.image.models.vae import encode

    def to_pixels(image: Image.Image) -> "Tensor":
        values = torch.from_numpy(np.array(image.convert("RGB"), np.float32)) / 127.5 - 1
        return values.permute(2, 0, 1)[None]

    return [next(decode_latents(vae, encode(vae, to_pixels(image)))) for image in images]
