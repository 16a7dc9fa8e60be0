"""Early stopping: select the best step by its evaluation metrics, and decide when to stop."""

from collections.abc import Mapping
from typing import Literal

BestMetric = Literal["none", "val_loss", "identity"]
EvalMetrics = Mapping[int, Mapping[str, float]]
"""Evaluation metrics by step."""

MIN_CLIP_T_SHARE = 0.9
"""Smallest allowed share of the first evaluation's CLIP-T: identity must not cost prompt adherence."""


def best_step(eval_metrics: EvalMetrics, best_metric: BestMetric) -> int | None:
    """Return the best step, or None to use the last one.

    "val_loss" selects the lowest. "identity" selects the highest identity among the evaluations
    with at least 90 % of the first evaluation's CLIP-T. Ties go to the earlier step.
    """
    if best_metric == "val_loss":
        losses = {
            step: metrics["val_loss"] for step, metrics in eval_metrics.items() if "val_loss" in metrics
        }
        return min(losses, key=lambda step: (losses[step], step), default=None)
    if best_metric == "identity":
        scored = {step: metrics for step, metrics in sorted(eval_metrics.items()) if "identity" in metrics}
        min_clip_t = MIN_CLIP_T_SHARE * next((metrics["clip_t"] for metrics in scored.values()), 0.0)
        identity = {step: m["identity"] for step, m in scored.items() if m["clip_t"] >= min_clip_t}
        return max(identity, key=lambda step: (identity[step], -step), default=None)
    return None


def should_stop(eval_metrics: EvalMetrics, best_metric: BestMetric, patience: int) -> bool:
    """Return True after `patience` evaluations without a better one."""
    best = best_step(eval_metrics, best_metric)
    if not patience or best is None:
        return False
    metric = best_metric
    return sum(step > best for step, metrics in eval_metrics.items() if metric in metrics) >= patience
