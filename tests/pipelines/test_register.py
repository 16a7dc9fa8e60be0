"""Register: what the registry holds after a decision, and that a decision stands."""

import json
from pathlib import Path
from typing import Any

import pytest

import packages
from stores import empty_store
from valentina_pipeline.datasets.json_file import JsonFile
from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.domain.scene import InvalidScenesError
from valentina_pipeline.integrations.registry import Registry, Version, list_packages
from valentina_pipeline.pipelines.register.nodes import DECISION, register_candidate

NAME = "valentina_moreau"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    empty_store(tmp_path, monkeypatch)
    return tmp_path


def registered(root: Path, seed: int = 1, register: dict[str, Any] | None = None, **changes: Any) -> dict:
    decision, files = register_candidate(
        register=register or packages.stage("register"), **packages.inputs(root, seed, **changes)
    )
    JsonFile(filepath=str(root / DECISION.format(concept=NAME))).save(decision)
    assert sha256(files["SHA256SUMS"]) in {each.tags["package_sha256"] for each in versions(root)}
    return decision


def versions(root: Path) -> list[Version]:
    return [version for version, _ in list_packages(root)]


def champion(root: Path) -> Any:
    return Registry(root, NAME).champion()


def test_the_first_that_passes_is_champion_with_its_whole_package_and_reasons(root: Path) -> None:
    decision = registered(root)
    version = champion(root)
    assert decision["status"] == version.tags["decision"] == "champion"
    assert version.tags["content_hash"] == decision["content_hash"]
    assert version.tags["reasons"].splitlines() == decision["reasons"]
    (stored,) = root.glob(f"mlruns/{NAME}/*/artifacts/package")
    assert {"MLmodel", "SHA256SUMS", "lora", "base", "code"} <= {file.name for file in stored.iterdir()}
    assert json.loads((stored / "decision.json").read_text()) == decision


def test_the_same_content_again_is_the_same_version_and_decision(root: Path) -> None:
    assert registered(root) == registered(root)
    assert champion(root).number == "1"


def test_one_that_fails_a_gate_is_registered_as_a_candidate(root: Path) -> None:
    decision = registered(root, metrics=packages.metrics(ratio_to_ceiling=0.1))
    assert decision["status"] == "candidate"
    assert champion(root) is None
    found = Registry(root, NAME).find(decision="candidate")
    assert found is not None


def test_the_crown_moves_to_a_better_one_and_a_rerun_of_the_former_does_not_take_it_back(root: Path) -> None:
    first = registered(root)
    better = {"identity": packages.metrics(lora=packages.figure(0.8))["identity"]}
    second = registered(root, 2, metrics={**packages.metrics(), **better})
    assert second["compared_with"]["content_hash"] == first["content_hash"]
    assert champion(root).tags["content_hash"] == second["content_hash"]
    assert registered(root) == first
    assert champion(root).tags["content_hash"] == second["content_hash"]


def test_an_equal_one_does_not_take_the_crown(root: Path) -> None:
    first = registered(root)
    assert registered(root, 2)["status"] == "candidate"
    assert champion(root).tags["content_hash"] == first["content_hash"]


def test_a_fresh_clone_repeats_the_decision_in_git(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(root)
    second = registered(root, 2)
    assert second["compared_with"] is not None
    empty_store(tmp_path, monkeypatch)  # the registry stays behind, decision.json is in git
    assert registered(root, 2) == second


def test_stricter_gates_decide_anew(root: Path) -> None:
    assert registered(root)["status"] == "champion"
    strict = {"gates": {"identity.gain_over_base": {"min": 0.5}}}
    assert registered(root, register=strict)["status"] == "candidate"


def test_built_again_it_is_byte_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = packages.built(tmp_path)
    monkeypatch.chdir(tmp_path)  # MLflow looks for a uv project in the working directory
    assert packages.built(tmp_path) == first
    assert "uv.lock" not in first


def test_a_scene_that_the_word_policy_refuses_is_not_built(tmp_path: Path) -> None:
    bad = {"travel": {"garden": "in a rose garden", "beach": "sunbathing naked on a beach"}}

    said = r"scenes\.yml: scene beach is refused: sexual content is not drawn"
    with pytest.raises(InvalidScenesError, match=said):
        packages.built(tmp_path, scenes=bad)


def test_another_decision_is_another_package(tmp_path: Path) -> None:
    other = packages.built(tmp_path, {**packages.DECISION, "status": "candidate"})
    assert other["SHA256SUMS"] != packages.built(tmp_path)["SHA256SUMS"]
