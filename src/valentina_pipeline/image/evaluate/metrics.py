"""The figures of a LoRA: whose face it draws, what of the prompt, how varied, and whether it copies.

Identity is the mean cosine of a face's vector to those of the held-out portraits. Two figures give it
its scale: the ceiling, real portraits measured the same way, and the floor, the bare base's images of
nobody in particular (the class word and the scene, no description). A real base has no other measured
people at hand, so that the floor is drawn; it is the same for every base.

Identity is averaged over images that show a face; the share that does is a figure of its own
(`face_found`), with its own gate, so that a lost face neither counts twice nor hides.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from valentina_pipeline.common.bootstrap import Bootstrap, Interval, interval
from valentina_pipeline.image.evaluate.prompts import VARIANTS
from valentina_pipeline.image.evaluate.scoring import Portraits, ScoredImages, ceiling, copy_limits
from valentina_pipeline.image.faces.similarity import FACE_PROBABILITY

if TYPE_CHECKING:
    import pandas as pd

COMPARED = ("lora", "bare")


def compute_metrics(measured: ScoredImages, real: Portraits, resamples: int, seed: int) -> dict[str, Any]:
    """Return the metrics, each mean with its 95% interval.

    Intervals come from resampling prompts, for the ceiling from resampling portraits; gain and ratio
    from the same resamples of both sides, for prompts and seeds are shared.

    Args:
        measured: every image's scores.
        real: her portraits.
        resamples: behind each interval.
        seed: of the resampling.

    Returns:
        JSON's plain mapping: identity, face_found, clip_t, clip_i, diversity, memorisation, images.
    """
    sides = {variant: VariantScores.of(measured, variant) for variant in VARIANTS}
    boot = Bootstrap.over([take.prompt.number for take in measured.takes], resamples, seed)

    def mean(column: str) -> dict[str, Any]:
        return {v: boot.interval(sides[v].column(column), sides[v].numbers).plain() for v in COMPARED}

    clip_t = mean("clip_t")
    lora, bare = clip_t["lora"]["mean"], clip_t["bare"]["mean"]
    drop = (bare - lora) / _positive(abs(bare))  # relative; a cosine below 0 is no better for being one
    return {
        "identity": _identity(sides, real, boot, seed),
        "face_found": mean("face_found"),
        "clip_t": {**clip_t, "drop": float(drop)},
        "clip_i": mean("clip_i"),
        "diversity": {v: boot.interval(*sides[v].diversity()).plain() for v in COMPARED},
        "memorisation": _memorisation(sides["lora"], real),
        "images": len(measured.takes),
    }


def _identity(
    sides: "dict[str, VariantScores]", real: Portraits, boot: Bootstrap, seed: int
) -> dict[str, Any]:
    """Return each variant's identity, ceiling and floor, and the LoRA's gain and ratio with their bounds."""
    given = {variant: (side.column("identity"), side.numbers) for variant, side in sides.items()}
    identity = {variant: boot.interval(*each) for variant, each in given.items()}
    best = ceiling(real)
    portraits = range(len(best))
    among_real = Bootstrap.over(portraits, len(boot.draws), seed)
    identity["ceiling"] = among_real.interval(best, portraits)
    lora, bare = (boot.means(*given[variant]) for variant in COMPARED)
    top = _positive(identity["ceiling"].mean)
    gain = interval(identity["lora"].mean - identity["bare"].mean, lora - bare)
    ratio = interval(float(identity["lora"].mean / top), lora / _positive(among_real.means(best, portraits)))
    plain = {name: each.plain() for name, each in identity.items()}
    return {**plain, **_flat("gain", gain), **_flat("ratio", ratio)}


def _memorisation(lora: "VariantScores", real: Portraits) -> dict[str, float]:
    """Return how near the LoRA's images come to what it was trained on; 0 where it has none."""
    near, copied = lora.column("nearest_training"), lora.column("memorised")
    content, layout = copy_limits(real)
    return {
        "nearest_mean": float(near.mean()) if near.size else 0.0,
        "share_memorised": float(copied.mean()) if copied.size else 0.0,
        "threshold": content,
        "layout_threshold": layout,
    }


@dataclass(frozen=True)
class VariantScores:
    """One variant's n images.

    Attributes:
        scores: n rows.
        content: CLIP's (n, e).
        numbers: their prompts.
    """

    scores: "pd.DataFrame"
    content: np.ndarray
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, measured: ScoredImages, variant: str) -> "VariantScores":
        """Return a variant's part of what was measured."""
        rows = [row for row, take in enumerate(measured.takes) if take.variant == variant]
        numbers = tuple(measured.takes[row].prompt.number for row in rows)
        return cls(measured.scores.iloc[rows], measured.content[rows], numbers)

    def column(self, name: str) -> np.ndarray:
        """Return float64 (n,); of `face_found` 1 where a face was found."""
        if name == "face_found":
            return (self.scores["face_probability"] >= FACE_PROBABILITY).to_numpy(np.float64)
        return self.scores[name].to_numpy(np.float64)

    def diversity(self) -> tuple[np.ndarray, list[int]]:
        """Return each prompt's mean CLIP-I distance between two of its images, and these prompts.

        Prompts with fewer than two images have no distance: with none left, diversity is 0.
        """
        distances: dict[int, float] = {}
        for number in dict.fromkeys(self.numbers):
            own = self.content[[row for row, other in enumerate(self.numbers) if other == number]]
            if len(own) > 1:
                distances[number] = float(np.mean([1 - a @ b for a, b in combinations(own, 2)]))
        return np.array(list(distances.values()), np.float64), list(distances)


def _flat(name: str, figure: Interval) -> dict[str, float]:
    return {name: figure.mean, f"{name}_low": figure.low, f"{name}_high": figure.high}


def _positive(value: Any) -> Any:
    """Keep a divisor away from 0: what measures nothing gives a huge ratio, no error."""
    return np.maximum(value, 1e-6)
