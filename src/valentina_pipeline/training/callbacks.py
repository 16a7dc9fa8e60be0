"""Callbacks of a training run: logging, sample images, kept weights, evaluations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Metrics = dict[str, float]


@dataclass(frozen=True)
class TrainingCallbacks:
    """Callbacks of a training run: logging, sample images, kept weights, evaluations.

    Attributes:
        log: called after each step with loss, learning_rate, steps_per_second and any evaluation metrics.
        sample: called with the pipeline and its trained weights every `sample_every` steps.
        keep: called with the step every `keep_every` steps, to keep the trained weights.
        evaluators: pairs of an interval in steps and an evaluation that returns metrics, such as val_loss,
            identity and CLIP-T.
    """

    log: Callable[[Metrics, int], None] = lambda metrics, step: None
    sample: Callable[[int, Any], None] = lambda step, pipe: None
    keep: Callable[[int], None] = lambda step: None
    evaluators: Sequence[tuple[int, Callable[[], Metrics]]] = ()
