"""Decision whether a candidate becomes champion: a pure function of its and the champion's metrics.

Every gate must pass: identity, prompt adherence and memorization together. Identity alone rewards a LoRA
that copies its training images. The default thresholds are in config/gates.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from valentina_pipeline.common.confidence_intervals import format_interval
from valentina_pipeline.config.gates import GateConfig
from valentina_pipeline.config.register import RegisterConfig

CHAMPION, CANDIDATE = "champion", "candidate"

DECIMALS = 6
"""Decimals of every number, as in the decision's file: a decision read again equals one made again."""


@dataclass(frozen=True)
class Champion:
    """The present champion, from the registry.

    Attributes:
        content_hash: hash of its LoRA and base model.
        base_hash: hash of its base model.
        identity: mean, ci_low and ci_high of its LoRA's identity.
    """

    content_hash: str
    base_hash: str
    identity: Mapping[str, float]


@dataclass(frozen=True)
class Candidate:
    """A LoRA to decide on.

    Attributes:
        content_hash: hash of its LoRA and base model.
        base_hash: hash of its base model.
        metrics: evaluate's metrics.
    """

    content_hash: str
    base_hash: str
    metrics: Mapping[str, Any]


WORDS = {
    "identity.gain_over_base": "Identity gained over the base model with the full description",
    "identity.ratio_to_ceiling": "Identity as a share of the real-against-real ceiling",
    "identity_scale.lowest": "Identity from strangers to real portraits, by the lower of two judges,",
    "identity_scale.gain": "Identity gained over the described base model, by the judge who sees more of it,",
    "attributes.all.lora.mean": "The share of requested attributes that the images show",
    "attributes_drop.ci_low": "Its drop from the base model, at the low end of the interval,",
    "face_detection_rate.lora.mean": "The share of images with a face",
    "clip_t.relative_drop": "Relative drop in prompt adherence (CLIP-T) from the base model",
    "memorization.rate": "The share of images that copy a training image",
}
"""Descriptions of metrics by path; another metric is described by its path."""


@dataclass(frozen=True)
class Gate:
    """A metric and the threshold that it must meet.

    Attributes:
        metric: path in metrics.json.
        value: value of the metric.
        threshold: its configured threshold, with min or max.
    """

    metric: str
    value: float
    threshold: GateConfig

    @property
    def passed(self) -> bool:
        """True if the metric meets the threshold; a value equal to it passes."""
        low, high = self.threshold.min, self.threshold.max
        return (low is None or self.value >= low) and (high is None or self.value <= high)

    def verdict(self) -> dict[str, float | bool]:
        """Return the value, the threshold and the result as JSON values."""
        return {"value": self.value, **self.threshold.model_dump(), "passed": self.passed}

    def sentence(self) -> str:
        """Return the verdict as a sentence with value and threshold."""
        words = WORDS.get(self.metric, f"The metric {self.metric}")
        verb = "passes" if self.passed else "fails"
        low, high = self.threshold.min, self.threshold.max
        bound = f"at least {low:.3f}" if low is not None else f"at most {high:.3f}"
        return f"{words} is {self.value:.3f} and {verb}: it must be {bound}."


class UnknownMetricError(ValueError):
    """A gate names a metric that the evaluation does not have."""


def measure_gates(metrics: Mapping[str, Any], cfg: RegisterConfig) -> list[Gate]:
    """Return the gates with the values of their metrics.

    Raises:
        UnknownMetricError: a gate's metric is not in `metrics`, or is not a number.
    """
    numbers = dict(_flatten(metrics))
    gates = []
    for metric, threshold in cfg.gates.items():
        if threshold.min is None and threshold.max is None:
            continue
        if metric not in numbers:
            raise UnknownMetricError(
                f"register.gates: {metric} is not a metric of the evaluation; must be one of "
                f"{', '.join(sorted(numbers))}"
            )
        gates.append(Gate(metric, round(numbers[metric], DECIMALS), threshold))
    return gates


def _flatten(metrics: Mapping[str, Any], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """Yield the path and value of each number."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, (*parents, name))
        elif isinstance(value, int | float):
            yield ".".join((*parents, name)), value


def decide(
    candidate: Candidate,
    champion: Champion | None,
    cfg: RegisterConfig,
    recorded: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Decide whether the candidate becomes champion.

    It does if every gate passes and, where there is a champion, the low end of its identity's 95%
    interval lies above the high end of the champion's. Metrics of another base model come from other
    scoring networks and are not compared.

    Args:
        candidate: the LoRA to decide on.
        champion: the present champion, or None.
        cfg: the gates.
        recorded: an earlier decision. It is returned unchanged if it was made on the same content with the
            same gates, so that a rerun does not compare a champion with itself.

    Returns:
        status ("champion" or "candidate"), reasons (sentences), gates (metric -> value, min or max, passed),
        compared_with (content_hash and identity, or None) and content_hash. Nothing in it depends on
        the time or on a run id.

    Raises:
        UnknownMetricError: a gate names a metric that the evaluation does not have.
    """
    gates = measure_gates(candidate.metrics, cfg)
    verdicts = {gate.metric: gate.verdict() for gate in gates}
    if recorded and recorded["content_hash"] == candidate.content_hash and recorded["gates"] == verdicts:
        return dict(recorded)
    held = all(gate.passed for gate in gates)
    wins, why, compared = _compare_with_champion(candidate, champion) if held else (False, [], None)
    return {
        "status": CHAMPION if held and wins else CANDIDATE,
        "reasons": [*(gate.sentence() for gate in gates), *why],
        "gates": verdicts,
        "compared_with": compared,
        "content_hash": candidate.content_hash,
    }


def _compare_with_champion(
    candidate: Candidate, champion: Champion | None
) -> tuple[bool, list[str], dict[str, Any] | None]:
    """Return whether the candidate wins, why, and what it was compared with."""
    if champion is None:
        return True, ["There is no champion yet: passing the gates is enough."], None
    if champion.content_hash == candidate.content_hash:
        return True, ["It is the present champion."], None
    if champion.base_hash != candidate.base_hash:
        reason = (
            f"The present champion {champion.content_hash[:12]} was trained on another base model, "
            "whose metrics come from other scoring networks: set the alias `champion` by hand to prefer "
            "this one."
        )
        return False, [reason], None
    own, other = (
        _round_interval(side) for side in (candidate.metrics["identity"]["lora"], champion.identity)
    )
    wins = own["ci_low"] > other["ci_high"]
    reason = (
        f"Identity {format_interval(own)} {'lies' if wins else 'does not lie'} beyond the present champion's "
        f"{format_interval(other)}."
    )
    return wins, [reason], {"content_hash": champion.content_hash, "identity": other}


def _round_interval(figure: Mapping[str, float]) -> dict[str, float]:
    return {name: round(figure[name], DECIMALS) for name in ("mean", "ci_low", "ci_high")}
