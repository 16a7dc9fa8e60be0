"""Callbacks of a training run: logging, sample images, evaluations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Metrics = dict[str, float]


@dataclass(frozen=True)
class TrainingCallbacks:
    """Who is told about a run, and who looks at it on the way.

    Attributes:
        log: gets loss, learning_rate and steps_per_second after each step, and each look's figures.
        sample: gets the pipeline with what was learned, every `sample_every` steps.
        looks: every so many steps, figures of the pipeline: held-out loss, identity, CLIP-T.
    """

    log: Callable[[Metrics, int], None] = lambda metrics, step: None
    sample: Callable[[int, Any], None] = lambda step, pipe: None
    looks: Sequence[tuple[int, Callable[[], Metrics]]] = ()
