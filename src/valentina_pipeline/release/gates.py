"""Decision whether a candidate becomes champion: a pure function of its and the champion's metrics.

Every gate must pass: identity, prompt adherence and memorization together. Identity alone rewards a LoRA
that copies its training images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Gate:
    """A metric and the threshold that it must meet."""

    words: str
    value: float
    limit: float
    at_least: bool

    @property
    def passed(self) -> bool:
        """True if the metric meets the threshold; a value equal to it passes."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def sentence(self) -> str:
        """Return the verdict as a sentence with value and threshold."""
        verb = "passes" if self.passed else "fails"
        side = "at least" if self.at_least else "at most"
        return f"{self.words} is {self.value:.3f} and {verb}: it must be {side} {self.limit:.3f}."


def gates(metrics: Mapping[str, Any], cfg: RegisterConfig) -> dict[str, Gate]:
    """Return the gates by name.

    Raises:
        KeyError: a metric is missing.
    """

    def gate(words: str, value: float, limit: float, at_least: bool) -> Gate:
        return Gate(words, round(value, DECIMALS), round(limit, DECIMALS), at_least)

    identity = metrics["identity"]
    copied = metrics["memorization"]["rate"]
    return {
        "identity_gain": gate("Identity gained over the base model with the full description",
                              identity["gain_over_base"], cfg.min_identity_gain, True),
        "identity_ratio": gate("Identity as a share of the real-against-real ceiling",
                               identity["ratio_to_ceiling"], cfg.min_identity_ratio, True),
        "face_detection_rate": gate("The share of images with a face",
                           metrics["face_detection_rate"]["lora"]["mean"], cfg.min_face_detection_rate, True),
        "clip_t_drop": gate("Relative drop in prompt adherence (CLIP-T) from the base model",
                            metrics["clip_t"]["relative_drop"], cfg.max_clip_t_drop, False),
        "memorization_rate": gate("The share of images that copy a training image",
                          copied, cfg.max_memorization_rate, False),
    }  # fmt: skip


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
        cfg: the gates' thresholds.
        recorded: an earlier decision. It is returned unchanged if it was made on the same content with the
            same gates, so that a rerun does not compare a champion with itself.

    Returns:
        status ("champion" or "candidate"), reasons (sentences), gates (name -> value, limit, passed),
        compared_with (content_hash and identity, or None) and content_hash. Nothing in it depends on
        the time or on a run id.
    """
    results = gates(candidate.metrics, cfg)
    verdicts = {n: {"value": g.value, "limit": g.limit, "passed": g.passed} for n, g in results.items()}
    if recorded and recorded["content_hash"] == candidate.content_hash and recorded["gates"] == verdicts:
        return dict(recorded)
    held = all(gate.passed for gate in results.values())
    wins, why, compared = _compare_with_champion(candidate, champion) if held else (False, [], None)
    return {
        "status": CHAMPION if held and wins else CANDIDATE,
        "reasons": [*(gate.sentence() for gate in results.values()), *why],
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
        f"Identity {_interval(own)} {'lies' if wins else 'does not lie'} beyond the present champion's "
        f"{_interval(other)}."
    )
    return wins, [reason], {"content_hash": champion.content_hash, "identity": other}


def _round_interval(figure: Mapping[str, float]) -> dict[str, float]:
    return {name: round(figure[name], DECIMALS) for name in ("mean", "ci_low", "ci_high")}


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['mean']:.3f} ({figure['ci_low']:.3f} to {figure['ci_high']:.3f})"
