"""Learning rate schedules."""

import math

from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.training.optimizers import Span

CYCLE_START = 1 / 25
"""Share of the peak learning rate at which one_cycle starts (default of fastai and torch)."""

CYCLE_RISE = 0.3
"""Share of the steps after warm-up in which the learning rate of one_cycle rises."""


def lr_multiplier(step: int, cfg: TrainConfig, span: Span = (0.0, 1.0)) -> float:
    """Return the learning rate multiplier at `step`, in [0, 1]; 0 outside the span.

    After a linear warm-up over `cfg.lr_warmup_steps`, the schedule is "constant", "cosine" (down to 0) or
    "one_cycle" (Smith & Topin 2018). The latter rises from 1/25 over the first 30 % of the steps after
    warm-up and then falls to 0, both along a cosine.

    Args:
        step: from 0.
        cfg: number of steps, warm-up steps and schedule.
        span: start and end of the schedule, as shares of all steps.
    """
    first, end = (round(share * cfg.max_steps) for share in span)
    if not first <= step < end:
        return 0.0
    if step - first < cfg.lr_warmup_steps:
        return (step - first + 1) / cfg.lr_warmup_steps
    progress = (step - first - cfg.lr_warmup_steps) / max(1, end - first - cfg.lr_warmup_steps)
    match cfg.lr_scheduler:
        case "constant":
            return 1.0
        case "cosine":
            return _cosine(1, 0, progress)
        case "one_cycle" if progress < CYCLE_RISE:
            return _cosine(CYCLE_START, 1, progress / CYCLE_RISE)
        case "one_cycle":
            return _cosine(1, 0, (progress - CYCLE_RISE) / (1 - CYCLE_RISE))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
