"""Which look at a run is the best one, by a rule that is stated before it starts, and when to stop."""

from collections.abc import Mapping
from typing import Literal

Keep = Literal["last", "loss", "identity"]
Looks = Mapping[int, Mapping[str, float]]
"""Figures by step."""

CLIP_T_KEPT = 0.9
"""Share of the first look's CLIP-T that a later one must keep: likeness is not all."""


def best_step(looks: Looks, keep: Keep) -> int | None:
    """Return the step to keep, or None for the last one.

    "loss": the lowest held-out loss. "identity": the highest identity among the looks whose CLIP-T is at
    least nine tenths of the first's. Of two as good, the earlier.
    """
    if keep == "loss":
        losses = {
            step: figures["held_out_loss"] for step, figures in looks.items() if "held_out_loss" in figures
        }
        return min(losses, key=lambda step: (losses[step], step), default=None)
    if keep == "identity":
        drawn = {step: figures for step, figures in sorted(looks.items()) if "identity" in figures}
        floor = CLIP_T_KEPT * next((figures["clip_t"] for figures in drawn.values()), 0.0)
        identity = {step: f["identity"] for step, f in drawn.items() if f["clip_t"] >= floor}
        return max(identity, key=lambda step: (identity[step], -step), default=None)
    return None


def should_stop(looks: Looks, keep: Keep, patience: int) -> bool:
    """Say whether `patience` looks went by since the best one."""
    best = best_step(looks, keep)
    if not patience or best is None:
        return False
    figure = {"loss": "held_out_loss", "identity": "identity"}[keep]
    return sum(step > best for step, figures in looks.items() if figure in figures) >= patience
