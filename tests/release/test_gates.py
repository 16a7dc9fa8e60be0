"""Gates hold together, and a champion is beaten only beyond the confidence intervals."""

from typing import Any

import pytest

import packages
from valentina_pipeline.config.register import RegisterConfig
from valentina_pipeline.release.gates import Candidate, Champion, UnknownMetricError, decide

CFG = RegisterConfig()
BASE = "b" * 64


def candidate(content: str = "new", **changes: Any) -> Candidate:
    return Candidate(content, BASE, {**packages.metrics(), **changes})


def champion(mean: float, half: float = 0.04, base: str = BASE, content: str = "old") -> Champion:
    return Champion(content, base, packages.figure(mean, half))


def test_the_first_champion_needs_only_the_gates() -> None:
    decision = decide(candidate(), None, CFG)
    assert decision["status"] == "champion"
    assert decision["compared_with"] is None
    assert decision["reasons"][-1] == "There is no champion yet: passing the gates is enough."
    assert decision["gates"]["identity.gain_over_base"] == {"value": 0.45, "min": 0.3, "passed": True}


@pytest.mark.parametrize(
    ("gate", "changes"),
    [
        ("identity.gain_over_base", {"identity": packages.metrics(gain_over_base=0.29)["identity"]}),
        ("identity.ratio_to_ceiling", {"identity": packages.metrics(ratio_to_ceiling=0.79)["identity"]}),
        (
            "face_detection_rate.lora.mean",
            {"face_detection_rate": {"lora": packages.figure(0.89), "base": packages.figure(0.9)}},
        ),
        ("clip_t.relative_drop", {"clip_t": {"relative_drop": 0.11}}),
        ("memorization.rate", {"memorization": {"rate": 0.11}}),
    ],
)
def test_one_gate_that_fails_is_enough_to_stay_a_candidate(gate: str, changes: dict[str, Any]) -> None:
    decision = decide(candidate(**changes), None, CFG)
    assert decision["status"] == "candidate"
    assert [name for name, each in decision["gates"].items() if not each["passed"]] == [gate]
    (reason,) = (reason for reason in decision["reasons"] if "fails" in reason)
    assert f"{decision['gates'][gate]['value']:.3f}" in reason


def test_given_gates_change_add_to_and_remove_the_default_ones() -> None:
    given = {
        "identity.gain_over_base": {"min": 0.5},
        "diversity.lora.mean": {"max": 0.9},
        "clip_t.relative_drop": {},
    }
    cfg = RegisterConfig.model_validate({"gates": given})
    assert RegisterConfig.model_validate(cfg.model_dump(mode="json")) == cfg
    decision = decide(candidate(diversity={"lora": packages.figure(0.2)}), None, cfg)
    assert list(decision["gates"]) == [
        "identity.gain_over_base",
        "identity.ratio_to_ceiling",
        "face_detection_rate.lora.mean",
        "memorization.rate",
        "diversity.lora.mean",
    ]
    assert decision["gates"]["diversity.lora.mean"] == {"value": 0.2, "max": 0.9, "passed": True}
    assert (
        "The metric diversity.lora.mean is 0.200 and passes: it must be at most 0.900." in decision["reasons"]
    )
    assert decision["status"] == "candidate"


def test_a_gate_on_an_unknown_metric_says_which_there_are() -> None:
    cfg = RegisterConfig.model_validate({"gates": {"identity.gane": {"min": 0.5}}})
    with pytest.raises(
        UnknownMetricError, match=r"identity\.gane is not a metric .*identity\.gain_over_base"
    ):
        decide(candidate(), None, cfg)


def test_a_figure_exactly_on_its_limit_passes() -> None:
    on_the_limit = candidate(
        identity=packages.metrics(gain_over_base=0.3, ratio_to_ceiling=0.8)["identity"],
        clip_t={"relative_drop": 0.1},
    )
    assert decide(on_the_limit, None, CFG)["status"] == "champion"


def test_a_champion_is_beaten_only_beyond_both_intervals() -> None:
    # the candidate's interval is 0.66 to 0.74
    assert decide(candidate(), champion(0.61), CFG)["status"] == "champion"
    overlapping = decide(candidate(), champion(0.63), CFG)
    assert overlapping["status"] == "candidate"
    assert overlapping["compared_with"] == {"content_hash": "old", "identity": packages.figure(0.63)}
    assert "0.700 (0.660 to 0.740) does not lie beyond" in overlapping["reasons"][-1]


def test_a_champion_is_not_beaten_by_one_that_fails_a_gate() -> None:
    decision = decide(candidate(memorization={"rate": 0.5}), champion(0.1), CFG)
    assert decision["status"] == "candidate"


def test_a_champion_on_another_base_is_left_to_a_person() -> None:
    decision = decide(candidate(), champion(0.1, base="c" * 64), CFG)
    assert decision["status"] == "candidate"
    assert decision["compared_with"] is None
    assert "another base" in decision["reasons"][-1]


def test_the_champion_is_not_put_up_against_itself() -> None:
    assert decide(candidate("old"), champion(0.7), CFG)["status"] == "champion"


def test_the_same_content_gets_its_recorded_decision_again() -> None:
    recorded = decide(candidate(), None, CFG)
    assert decide(candidate(), champion(0.9), CFG, recorded) == recorded


def test_a_recorded_decision_counts_only_for_its_content_and_gates() -> None:
    recorded = decide(candidate(), None, CFG)
    strict = RegisterConfig.model_validate({"gates": {"identity.gain_over_base": {"min": 0.5}}})
    assert decide(candidate(), None, strict, recorded)["status"] == "candidate"
    assert decide(candidate("newer"), champion(0.9), CFG, recorded)["status"] == "candidate"
