"""Metrics of a LoRA: identity, prompt following, diversity and memorization.

Identity is the mean cosine of a face embedding to those of the held-out portraits. Two values give its scale:
the ceiling, real portraits measured the same way, and the floor, the base model's images of an unspecified
person (class word and scene, no description). The floor is generated because a real base model comes without
portraits of other people; its definition is the same for every base model.

Identity is averaged over images that show a face. Their share is a separate metric (`face_detection_rate`)
with its own gate, so that a missing face neither counts twice nor goes unnoticed.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from valentina_pipeline.common.confidence_intervals import Bootstrap, Interval, percentile_interval
from valentina_pipeline.image.evaluate.prompts import VARIANTS
from valentina_pipeline.image.evaluate.scoring import Portraits, ScoredImages, ceiling, copy_limits
from valentina_pipeline.image.faces.similarity import FACE_PROBABILITY

if TYPE_CHECKING:
    import pandas as pd

COMPARED = ("lora", "base")


def compute_metrics(measured: ScoredImages, real: Portraits, resamples: int, seed: int) -> dict[str, Any]:
    """Return the metrics, each mean with its 95% interval.

    Intervals resample prompts, the ceiling's resamples portraits. Gain and ratio use the same resamples for
    LoRA and base model, because they share prompts and seeds.

    Args:
        measured: scores of all images.
        real: the character's portraits.
        resamples: number of resamples behind each interval.
        seed: seed of the resampling.

    Returns:
        A JSON mapping: identity, held_out_minus_training, face_detection_rate, clip_t, clip_i, diversity,
        memorization, num_images.
    """
    sides = {variant: VariantScores.of(measured, variant) for variant in VARIANTS}
    boot = Bootstrap.draw([plan.prompt.number for plan in measured.planned], resamples, seed)

    def mean(column: str) -> dict[str, Any]:
        return {
            v: boot.mean_with_interval(sides[v].column(column), sides[v].numbers).as_json() for v in COMPARED
        }

    clip_t = mean("clip_t")
    lora, base = clip_t["lora"]["mean"], clip_t["base"]["mean"]
    drop = (base - lora) / _nonzero(abs(base))  # relative, also for a negative cosine
    return {
        "identity": _identity(sides, real, boot, seed),
        "held_out_minus_training": {
            **mean("held_out_minus_training"),
            "real": _real_margin(real, resamples, seed),
        },
        "face_detection_rate": mean("face_detection_rate"),
        "clip_t": {**clip_t, "relative_drop": float(drop)},
        "clip_i": mean("clip_i"),
        "diversity": {v: boot.mean_with_interval(*sides[v].diversity()).as_json() for v in COMPARED},
        "memorization": _memorization(sides["lora"], real),
        "num_images": len(measured.planned),
    }


def _identity(
    sides: "dict[str, VariantScores]", real: Portraits, boot: Bootstrap, seed: int
) -> dict[str, Any]:
    """Return each variant's identity and the ceiling, and the LoRA's gain and ratio with their intervals."""
    samples = {variant: (side.column("identity"), side.numbers) for variant, side in sides.items()}
    identity = {variant: boot.mean_with_interval(*sample) for variant, sample in samples.items()}
    best = ceiling(real)
    portraits = range(len(best))
    among_real = Bootstrap.draw(portraits, len(boot.draws), seed)
    identity["ceiling"] = among_real.mean_with_interval(best, portraits)
    lora, base = (boot.resample_means(*samples[variant]) for variant in COMPARED)
    top = _nonzero(identity["ceiling"].mean)
    gain = percentile_interval(identity["lora"].mean - identity["base"].mean, lora - base)
    ratio = percentile_interval(
        float(identity["lora"].mean / top), lora / _nonzero(among_real.resample_means(best, portraits))
    )
    plain = {name: estimate.as_json() for name, estimate in identity.items()}
    return {**plain, **_flatten("gain_over_base", gain), **_flatten("ratio_to_ceiling", ratio)}


def _real_margin(real: Portraits, resamples: int, seed: int) -> dict[str, float]:
    """Return `held_out_minus_training` of the held-out portraits, each against the other held-out ones."""
    held_out = real.identity[real.references]
    count = len(held_out)
    similarity = held_out @ held_out.T
    np.fill_diagonal(similarity, 0)
    to_others = similarity.sum(axis=1) / (count - 1) if count > 1 else np.full(count, np.nan)
    to_training = (held_out @ real.identity[real.training].T).mean(axis=1)
    boot = Bootstrap.draw(range(count), resamples, seed)
    return boot.mean_with_interval(to_others - to_training, range(count)).as_json()


def _memorization(lora: "VariantScores", real: Portraits) -> dict[str, float]:
    """Return the similarity of the LoRA's images to its training images, with thresholds; 0 if none."""
    near, copied = lora.column("nearest_training"), lora.column("memorized")
    content, layout = copy_limits(real)
    return {
        "nearest_mean": float(near.mean()) if near.size else 0.0,
        "rate": float(copied.mean()) if copied.size else 0.0,
        "threshold": content,
        "layout_threshold": layout,
    }


@dataclass(frozen=True)
class VariantScores:
    """Scores of one variant's n images.

    Attributes:
        scores: n rows of SCORE_COLUMNS.
        content: CLIP image embeddings (n, e).
        numbers: prompt number of each image.
    """

    scores: "pd.DataFrame"
    content: np.ndarray
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, measured: ScoredImages, variant: str) -> "VariantScores":
        """Return the scores of one variant."""
        rows = [row for row, plan in enumerate(measured.planned) if plan.variant == variant]
        numbers = tuple(measured.planned[row].prompt.number for row in rows)
        return cls(measured.scores.iloc[rows], measured.content[rows], numbers)

    def column(self, name: str) -> np.ndarray:
        """Return a column as float64 (n,).

        `face_detection_rate` is 1 where a face was found. `held_out_minus_training` is a face's likeness to
        the held-out portraits minus that to the training portraits: a copy is more like the latter.
        """
        if name == "held_out_minus_training":
            return self.column("identity") - self.column("identity_training")
        if name == "face_detection_rate":
            return (self.scores["face_probability"] >= FACE_PROBABILITY).to_numpy(np.float64)
        return self.scores[name].to_numpy(np.float64)

    def diversity(self) -> tuple[np.ndarray, list[int]]:
        """Return each prompt's mean CLIP-I distance between pairs of its images, and the prompt numbers.

        Prompts with fewer than two images are skipped; if none is left, diversity is 0.
        """
        distances: dict[int, float] = {}
        for number in dict.fromkeys(self.numbers):
            own = self.content[[row for row, other in enumerate(self.numbers) if other == number]]
            if len(own) > 1:
                distances[number] = float(np.mean([1 - a @ b for a, b in combinations(own, 2)]))
        return np.array(list(distances.values()), np.float64), list(distances)


def _flatten(name: str, figure: Interval) -> dict[str, float]:
    return {name: figure.mean, f"{name}_ci_low": figure.ci_low, f"{name}_ci_high": figure.ci_high}


def _nonzero(value: Any) -> Any:
    """Return the value, at least 1e-6, so that a ratio over 0 is huge instead of an error."""
    return np.maximum(value, 1e-6)
