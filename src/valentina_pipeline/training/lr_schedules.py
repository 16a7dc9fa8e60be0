"""Learning rate schedules."""

import math

from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.training.optimizers import Span

CYCLE_START = 1 / 25
"""Share of the peak rate that one cycle begins with (fastai's and torch's default)."""

CYCLE_RISE = 0.3
"""Share of the steps in which one cycle's rate rises."""


def lr_multiplier(step: int, cfg: TrainConfig, span: Span = (0.0, 1.0)) -> float:
    """Return the share of the learning rate at `step`, in [0, 1]; 0 outside the span.

    A linear warm-up over `cfg.warmup_steps`, then: "constant"; "cosine" towards 0; or "one_cycle" (Smith &
    Topin 2018), which rises from a 25th over the first 30 % and falls to nothing, both along a cosine.

    Args:
        step: from 0.
        cfg: how many there are, and the course.
        span: in which share of the steps this course takes place.
    """
    first, end = (round(share * cfg.steps) for share in span)
    if not first <= step < end:
        return 0.0
    if step - first < cfg.warmup_steps:
        return (step - first + 1) / cfg.warmup_steps
    progress = (step - first - cfg.warmup_steps) / max(1, end - first - cfg.warmup_steps)
    if cfg.schedule == "constant":
        return 1.0
    if cfg.schedule == "cosine":
        return _cosine(1, 0, progress)
    if progress < CYCLE_RISE:
        return _cosine(CYCLE_START, 1, progress / CYCLE_RISE)
    return _cosine(1, 0, (progress - CYCLE_RISE) / (1 - CYCLE_RISE))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
