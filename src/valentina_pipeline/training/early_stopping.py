"""Early stopping: select the best step by its evaluation metrics, and decide when to stop."""

from collections.abc import Mapping
from typing import Literal

Keep = Literal["last", "loss", "identity"]
Looks = Mapping[int, Mapping[str, float]]
"""Evaluation metrics by step."""

MIN_CLIP_T_SHARE = 0.9
"""Smallest allowed share of the first evaluation's CLIP-T: identity must not cost prompt adherence."""


def best_step(looks: Looks, keep: Keep) -> int | None:
    """Return the best step, or None to use the last one.

    "loss" selects the lowest held-out loss. "identity" selects the highest identity among the evaluations
    with at least 90 % of the first evaluation's CLIP-T. Ties go to the earlier step.
    """
    if keep == "loss":
        losses = {
            step: metrics["held_out_loss"] for step, metrics in looks.items() if "held_out_loss" in metrics
        }
        return min(losses, key=lambda step: (losses[step], step), default=None)
    if keep == "identity":
        scored = {step: metrics for step, metrics in sorted(looks.items()) if "identity" in metrics}
        min_clip_t = MIN_CLIP_T_SHARE * next((metrics["clip_t"] for metrics in scored.values()), 0.0)
        identity = {step: m["identity"] for step, m in scored.items() if m["clip_t"] >= min_clip_t}
        return max(identity, key=lambda step: (identity[step], -step), default=None)
    return None


def should_stop(looks: Looks, keep: Keep, patience: int) -> bool:
    """Return True after `patience` evaluations without a better one."""
    best = best_step(looks, keep)
    if not patience or best is None:
        return False
    metric = {"loss": "held_out_loss", "identity": "identity"}[keep]
    return sum(step > best for step, metrics in looks.items() if metric in metrics) >= patience
