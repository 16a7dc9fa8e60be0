"""Nodes of the stage `register`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config.register import RegisterConfig
from valentina_pipeline.config.validation import parse_config
from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.domain.rights import RightsRecord
from valentina_pipeline.pipelines.register.package_contents import gather_contents

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from valentina_pipeline.integrations.registry import Version
    from valentina_pipeline.release.gates import Champion

DECISION = "data/08_reporting/{concept}/decision.json"


def register_candidate(
    register: dict[str, Any],
    lora: Path,
    metrics: dict[str, Any],
    train_metrics: dict[str, Any],
    faces: "pd.DataFrame",
    training_images: "pd.DataFrame",
    rights: tuple[RightsRecord, ...],
    project_root: Path,
    tiny_weights: Path,
    comparison_grid: "Image.Image",
    scenes: dict[str, Any],
    tiny_judges: dict[str, Any],
    concept: dict[str, Any],
    base: dict[str, Any],
    train_lora: dict[str, Any],
    evaluate: dict[str, Any],
    publish: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, bytes | Path]]:
    """Decide whether the candidate becomes champion; build and register its package in either case.

    A LoRA with an earlier decision on the same metrics and gates keeps that decision. It comes from the
    registry, or from git where the registry has no champion yet, so that a fresh clone reproduces it. A
    candidate that fails its gates is registered without an error.

    RegisterConfig describes `register`; package_contents.py describes the other inputs. `tiny_weights` is an
    input so that DVC follows the models that relative paths of a base name.

    Returns:
        decision: see release/gates.py.
        built_package: relative path -> content, or the path of a file to copy.

    Raises:
        MissingModelError: the base model is not on this machine.
        mlflow.exceptions.MlflowException: the registry does not answer.
    """
    from valentina_pipeline.integrations.registry import Registry
    from valentina_pipeline.release.gates import CHAMPION, Candidate, decide
    from valentina_pipeline.release.package import build

    contents = gather_contents(
        project_root, lora, metrics, train_metrics, faces, training_images, rights, comparison_grid, scenes,
        tiny_judges, concept, base, train_lora, evaluate, publish,
    )  # fmt: skip
    registry = Registry(project_root, concept["trigger"])
    present, known = registry.champion(), registry.find(content_hash=contents.content_hash)
    recorded = _earlier_decision(present, known, project_root / DECISION.format(concept=concept["trigger"]))
    decision = decide(
        Candidate(contents.content_hash, contents.base_hash, metrics),
        _champion(present),
        parse_config(RegisterConfig, register, "register"),
        recorded,
    )
    files = build(contents, decision)
    version = registry.register(files, _tags(decision, metrics, contents.base_hash, files, project_root))
    # an old decision, read again, must not replace a champion that was promoted later
    should_promote = (
        decision != recorded or present is None or present.tags.get("content_hash") == contents.content_hash
    )
    if decision["status"] == CHAMPION and should_promote:
        registry.promote(version)
    return decision, files


def _earlier_decision(
    present: "Version | None", known: "Version | None", file: Path
) -> dict[str, Any] | None:
    """Return the earlier decision on this content, if any."""
    if known is not None:
        decision: dict[str, Any] = json.loads(known.tags["record"])
        return decision
    if present is None and file.is_file():
        try:
            decision = json.loads(file.read_text("utf-8"))
        except ValueError:  # for example conflict markers of a merge: decide again
            return None
        return decision if {"content_hash", "gates"} <= set(decision) else None
    return None


def _champion(present: "Version | None") -> "Champion | None":
    from valentina_pipeline.release.gates import Champion

    if present is None:
        return None
    tags = present.tags
    return Champion(tags["content_hash"], tags["base_sha256"], json.loads(tags["identity"]))


def _tags(
    decision: Mapping[str, Any],
    metrics: Mapping[str, Any],
    base_hash: str,
    files: Mapping[str, bytes | Path],
    root: Path,
) -> dict[str, str]:
    from valentina_pipeline.integrations.run_inputs import commit

    return {
        "content_hash": decision["content_hash"],
        "package_sha256": sha256(files["SHA256SUMS"]),
        "base_sha256": base_hash,
        "identity": json.dumps(metrics["identity"]["lora"], sort_keys=True),
        "decision": decision["status"],
        "reasons": "\n".join(decision["reasons"]),
        "record": json.dumps(decision, sort_keys=True),
        "git_commit": str(commit(root) or "unknown"),
    }
