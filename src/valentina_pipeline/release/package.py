"""Package of a character: all files needed to serve it, a deterministic function of their inputs."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.config.evaluate import EvaluateConfig
from valentina_pipeline.config.publish import PublishConfig
from valentina_pipeline.config.train_lora import NEW_TOKENS
from valentina_pipeline.domain.artifacts import (
    FACES_FILE,
    UNMEASURED,
    primary_weights,
    sha256,
    tensors_sha256,
)
from valentina_pipeline.domain.base_files import CONTROLNET_FILES, base_files
from valentina_pipeline.domain.manifest import HELD_OUT, TRAIN
from valentina_pipeline.domain.rights import RightsRecord
from valentina_pipeline.release import external_tools
from valentina_pipeline.release.checksums import SUMS_FILE, sha256sums
from valentina_pipeline.release.contents import PackageContents
from valentina_pipeline.release.model_card import card

if TYPE_CHECKING:
    import pandas as pd

LICENSES = Path(__file__).parent / "licenses"
"""Full texts by SPDX identifier, of licenses that require a copy."""

CODE_LICENSE = "Apache-2.0"

PRESETS = {
    "draft": (0.5, "dpm++_2m"),
    "standard": (1.0, "default"),
    "high": (1.5, "default"),
    "ultra": (2.5, "default"),
}
"""Name -> steps as a multiple of the evaluation's steps, and the sampler."""


def build(parts: PackageContents, decision: Mapping[str, Any]) -> dict[str, bytes | Path]:
    """Return the package's files by relative path, with SHA256SUMS; a Path is a file to copy.

    Args:
        parts: the package's contents.
        decision: the result of release/gates.py.

    Raises:
        ValueError: two files have the same path in the package, or the LoRA's folder is empty.
    """
    lora = {f"lora/{file.name}": file for file in sorted(parts.lora.iterdir()) if _is_content(file)}
    if not lora:
        raise ValueError(f"{parts.lora} contains no LoRA: run train_lora again")
    rights = rights_summary(parts.rights, parts.training_images)
    written: dict[str, bytes | Path] = {
        "concept.json": _json(_concept_json(parts, lora)),
        "base.json": _json({**parts.base.model_dump(), "sha256": parts.base_hash}),
        "rights.json": _json(rights),
        "presets.json": _json(presets(parts.base, parts.evaluate, parts.publish)),
        **_external_tool_files(parts, lora),
        "scenes.json": _json([{"name": name, **asdict(scene)} for name, scene in parts.scenes.items()]),
        "identity.json": _json(identity(parts.faces, parts.training_images, parts.metrics, decision)),
        "metrics.json": _json(UNMEASURED if parts.metrics is None else parts.metrics),
        "decision.json": _json(decision),
        "MODEL_CARD.md": card(parts, decision, rights).encode(),
        "LICENSE": license_notice(parts.rights, parts.base, parts.publish.engines).encode(),
        **({} if parts.attribute_judges is None else {"judges.json": _json(parts.attribute_judges)}),
        **({} if parts.comparison_grid is None else {"comparison_grid.png": parts.comparison_grid}),
    }
    networks = _merge_files(
        bundle_base(parts.base, parts.base_path),
        bundle_controlnets(parts.base, parts.controlnets),
        _bundle_embedder(parts.base, Path(parts.embedder)),
    )
    files = _merge_files(written, lora, networks, parts.engines, parts.code, parts.model)
    return {**files, SUMS_FILE: sha256sums(files)}


def content_hash(lora: Path, base_hash: str) -> str:
    """Return the sha256 over the LoRA's tensors and the base model; metadata does not count."""
    files = sorted(file for file in lora.iterdir() if _is_content(file))
    hashes = [tensors_sha256(file) if file.suffix == ".safetensors" else sha256(file) for file in files]
    lines = [f"{digest}  {file.name}\n" for digest, file in zip(hashes, files, strict=True)]
    return sha256("".join([*lines, f"{base_hash}  base\n"]).encode())


def presets(base: BaseConfig, measured: EvaluateConfig, publish: PublishConfig) -> dict[str, Any]:
    """Return the presets; `standard` uses the evaluation's settings."""
    table = {
        name: {
            "steps": max(1, round(measured.num_inference_steps * share)),
            "guidance_scale": measured.guidance_scale,
            "size": base.resolution,
            "scheduler": scheduler,
        }
        for name, (share, scheduler) in PRESETS.items()
    }
    return {"default": publish.default_preset, "presets": table}


def identity(
    faces: "pd.DataFrame | None",
    used: "pd.DataFrame | None",
    metrics: Mapping[str, Any] | None,
    decision: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the reference identity vector and the thresholds for faces of generated images.

    The mean cosine to the held-out portraits equals the cosine to their mean vector. Only this mean leaves
    the project. The thresholds are the gates by which the LoRA became champion.
    """
    if faces is None or used is None or metrics is None:
        return {**UNMEASURED}
    held_out = faces[faces["sha256"].isin(used.loc[used["split"] == HELD_OUT, "sha256"])]
    vectors = [list(map(float, vector)) for vector in held_out["embedding"]]
    ceiling, gates = metrics["identity"]["ceiling"]["mean"], decision["gates"]
    return {
        "mean": [round(sum(column) / len(vectors), 6) for column in zip(*vectors, strict=True)],
        "portraits": len(vectors),
        "ceiling": ceiling,
        "gate": round(gates.get("identity.ratio_to_ceiling", {}).get("min", 0.0) * ceiling, 6),
        "face_detection_rate": gates.get("face_detection_rate.lora.mean", {}).get("min", 0.0),
    }


def rights_summary(rights: Iterable[RightsRecord], used: "pd.DataFrame | None") -> dict[str, Any]:
    """Return the rights records of the training and held-out images, without the images themselves.

    `used` is None where the images are unknown; then all records count.

    `manifest_sha256` is the sha256 over the lines "sha256  rights record  split" of `images`. Each record
    carries the sha256 over all its fields.
    """
    columns = [] if used is None else [used[name] for name in ("sha256", "rights_id", "split")]
    rows = sorted(zip(*columns, strict=True))
    counts = Counter(record_id for _, record_id, _ in rows)
    fields = {"id", "holder", "license", "uses", "synthetic", "expires", "evidence", "evidence_sha256"}
    records = [record for record in rights if used is None or counts[record.id]]
    lines = [f"{sha}  {record_id}  {split}" for sha, record_id, split in rows]
    return {
        "records": [
            {
                **record.model_dump(mode="json", include=fields),
                "sha256": record.digest(),
                "images": counts[record.id],
            }
            for record in records
        ],
        "images": lines,
        "training": sum(split == TRAIN for *_, split in rows),
        "held_out": sum(split == HELD_OUT for *_, split in rows),
        "manifest_sha256": sha256("".join(f"{line}\n" for line in lines).encode()),
    }


def license_notice(rights: Iterable[RightsRecord], base: BaseConfig, engines: Sequence[str] = ()) -> str:
    """Return the license notice of all parts, with the full texts in `licenses/`."""
    both = " and ".join(f"{engine}/" for engine in engines)
    own = sorted({record.license for record in rights})
    lines = [
        f"The LoRA in lora/: {', '.join(own)}. It was trained on images under the records in rights.json,",
        "which also list the uses that their holders allow.",
        f"The base model {base.path}: {base.license}. Images generated with the LoRA also use the base",
        "model: its terms apply to them.",
        *([f"In {both}, LoRA and base model are merged: the terms of both apply."] if both else []),
        f"The code in code/: {CODE_LICENSE}.",
    ]
    named = sorted({*own, base.license, CODE_LICENSE})
    texts = [(name, LICENSES / f"{name}.txt") for name in named if "/" not in name]
    full = [f"\n\n{'=' * 80}\n{name}\n\n{file.read_text('utf-8')}" for name, file in texts if file.is_file()]
    return "\n".join(lines) + "\n" + "".join(full)


def bundle_base(base: BaseConfig, folder: Path) -> dict[str, Path]:
    """Return the base model's files as base/..., or nothing if it is too large to bundle."""
    if not base.bundle_in_package:
        return {}
    settings = [
        file for pattern in ("model_index.json", "*/*.json", "*/*.txt") for file in folder.glob(pattern)
    ]
    found = sorted([*settings, *base_files(folder)])
    return {f"base/{file.relative_to(folder).as_posix()}": file for file in found}


def _bundle_embedder(base: BaseConfig, file: Path) -> dict[str, Path]:
    """Return the face embedder's weights, bundled if the base model is."""
    return {FACES_FILE: file} if base.bundle_in_package and file.suffix == ".safetensors" else {}


def bundle_controlnets(base: BaseConfig, folders: Mapping[str, Path]) -> dict[str, Path]:
    """Return the ControlNets as controlnets/KIND/..., outside base/ so that the base's hash stays."""
    if not base.bundle_in_package:
        return {}
    return {
        f"controlnets/{kind}/{name}": folder / name
        for kind, folder in folders.items()
        for name in CONTROLNET_FILES
    }


def _external_tool_files(parts: PackageContents, lora: Mapping[str, Path]) -> dict[str, bytes]:
    """Return the files for other programs; ComfyUI needs a LoRA in kohya's format without new tokens."""
    table = presets(parts.base, parts.evaluate, parts.publish)
    image = external_tools.example_image(parts.concept, table["presets"][table["default"]])
    files = {}
    kohya = f"{parts.concept.trigger}.kohya.safetensors"
    adds_tokens = parts.train is not None and parts.train.method in NEW_TOKENS
    if f"lora/{kohya}" in lora and not adds_tokens:
        base = external_tools.checkpoint(parts.base, parts.base_path)
        files["comfyui.json"] = _json(external_tools.comfyui(image, base, kohya))
    if "sd_cpp" in parts.publish.engines:
        files["sd_cpp/README.md"] = external_tools.sd_cpp(image, "model.safetensors").encode()
    return files


def _concept_json(parts: PackageContents, lora: Mapping[str, Path]) -> dict[str, Any]:
    character = parts.concept
    return {
        "name": character.name,
        "kind": character.kind,
        "trigger": character.trigger,
        "class_word": character.class_word,
        "renderer_parameters": character.renderer_parameters,
        "resolution": parts.base.resolution,
        "content_hash": parts.content_hash,
        "lora_sha256": sha256(primary_weights(lora.values())),
    }


def _merge_files(
    *groups: Mapping[str, bytes | Path] | Mapping[str, Path] | Mapping[str, bytes],
) -> dict[str, bytes | Path]:
    files: dict[str, bytes | Path] = {}
    for group in groups:
        for name, content in group.items():
            if name in files:
                raise ValueError(f"two files of the package have the path {name}")
            files[name] = content
    return files


def _is_content(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".")


def _json(value: Mapping[str, Any] | Sequence[Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
