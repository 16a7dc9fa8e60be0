"""Comparison of training steps: LoRAs kept during training, with the finished one's prompts and seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from valentina_pipeline.common.confidence_intervals import Bootstrap, paired_difference
from valentina_pipeline.image.evaluate.attributes import FIELDS
from valentina_pipeline.image.evaluate.metrics import VariantScores
from valentina_pipeline.image.evaluate.prompts import PlannedImage

if TYPE_CHECKING:
    import pandas as pd

FALLING = ("attributes", "diversity")
"""Scores that fall when a LoRA is trained for too long: it forgets words, then everything but its images."""

STEP_COLUMNS = ("step", "score", "mean", "ci_low", "ci_high", "falls")
"""Columns of step_scores. `falls` is 1 where the score is below its best earlier step beyond the interval."""


def step_variants(lora_steps: Path) -> dict[int, str]:
    """Return the variant of each kept step in a folder with a folder for each, see `step_names`."""
    return step_names([int(folder.name) for folder in lora_steps.iterdir()])


def step_names(steps: Sequence[int]) -> dict[int, str]:
    """Return the variant of each step: "step-0100", and "lora" for the last, the finished LoRA."""
    return {step: "lora" if step == max(steps) else f"step-{step:04d}" for step in sorted(steps)}


def plan_step_images(planned: Sequence[PlannedImage], variants: Sequence[str]) -> list[PlannedImage]:
    """Return the finished LoRA's planned images for each variant of a kept LoRA."""
    return [
        replace(image, variant=variant, name=f"{variant}/{image.name.rpartition('/')[2]}")
        for variant in variants
        for image in planned
        if image.variant == "lora"
    ]


def compare_steps(scored: Mapping[int, VariantScores], resamples: int, seed: int) -> "pd.DataFrame":
    """Return the scores of each step, one row per step and score (STEP_COLUMNS).

    Args:
        scored: scores of each step's images, in ascending order of the steps.
        resamples: number of resamples behind each interval.
        seed: seed of the resampling.
    """
    import pandas as pd

    rows = []
    best: dict[str, pd.Series] = {}
    for step, own in scored.items():
        for score, values in _by_image(own).items():
            if values.empty:
                continue
            prompts = [key[0] for key in values.index]
            mean = Bootstrap.draw(prompts, resamples, seed).mean_with_interval(values.to_numpy(), prompts)
            falls = score in FALLING and score in best and _is_below(values, best[score], resamples, seed)
            rows.append({"step": step, "score": score, **mean.as_json(), "falls": int(falls)})
            if score not in best or values.mean() > best[score].mean():
                best[score] = values
    return pd.DataFrame(rows, columns=list(STEP_COLUMNS)).round(6)


def _by_image(own: VariantScores) -> dict[str, "pd.Series"]:
    """Return identity, attributes and CLIP-T by prompt and seed, and diversity by prompt, none missing."""
    import pandas as pd

    keys = pd.MultiIndex.from_arrays([own.numbers, own.scores["seed"]])
    shown = own.scores[[f"shows_{field}" for field in FIELDS]].to_numpy(np.float64)
    counts = np.isfinite(shown).sum(axis=1)
    attributes = np.where(counts > 0, np.nansum(shown, axis=1) / np.maximum(counts, 1), np.nan)
    distances, numbers = own.diversity()
    by_prompt = pd.MultiIndex.from_arrays([numbers, [0] * len(numbers)])
    scores = {
        "identity": pd.Series(own.column("identity"), keys),
        "attributes": pd.Series(attributes, keys),
        "clip_t": pd.Series(own.column("clip_t"), keys),
        "diversity": pd.Series(distances, by_prompt),
    }
    return {name: values.dropna() for name, values in scores.items()}


def _is_below(values: "pd.Series", best: "pd.Series", resamples: int, seed: int) -> bool:
    """Return True if the paired difference to the best earlier step lies below 0 with its whole interval."""
    difference = (values - best).dropna()
    if difference.empty:
        return False
    prompts = [key[0] for key in difference.index]
    return paired_difference(difference.to_numpy(), prompts, resamples, seed).ci_high < 0
