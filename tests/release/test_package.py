"""A package: its files, its rights, its card, and the same bytes every time."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import packages
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.config.evaluate import EvaluateConfig
from valentina_pipeline.config.publish import PublishConfig
from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.scene import Scene
from valentina_pipeline.release.contents import PackageContents
from valentina_pipeline.release.package import build, content_hash, presets, rights_summary

DECISION = {**packages.DECISION, "reasons": ["It is good."]}

BASE = {
    "family": "sdxl",
    "path": "tiny/weights/base",
    "resolution": 128,
    "license": "CreativeML Open RAIL++-M",
    "download_instructions": "git checkout",
    "bundle_in_package": True,
    "face_embedder": {"kind": "tiny", "path": "faces"},
    "clip": {"kind": "tiny", "path": "clip"},
}


@pytest.fixture
def parts(tmp_path: Path) -> PackageContents:
    base, lora = tmp_path / "base", tmp_path / "lora"
    for file in ("model_index.json", "unet/config.json", "unet/a.safetensors", "unet/a.fp16.safetensors"):
        (base / file).parent.mkdir(parents=True, exist_ok=True)
        (base / file).write_text(file)
    lora.mkdir()
    for name in ("pytorch_lora_weights.safetensors", "valentina_moreau.kohya.safetensors"):
        save_file({"down": np.zeros((2, 3), "float32"), "up": np.ones((3, 2), "float32")}, lora / name)
    (lora / ".hidden").touch()
    embedder = tmp_path / "tiny.safetensors"
    embedder.write_text("weights")
    code = tmp_path / "model.py"
    code.write_text("CODE = 1\n")
    return PackageContents(
        concept=Concept(**packages.concept()),
        rights=packages.rights(),
        base=BaseConfig(**BASE),
        base_path=base,
        base_hash="b" * 64,
        content_hash="c" * 64,
        controlnets={},
        lora=lora,
        train=TrainConfig(**packages.stage("train_lora")),
        evaluate=EvaluateConfig(**packages.stage("evaluate")),
        publish=PublishConfig(**packages.stage("publish")),
        metrics=packages.metrics(),
        train_metrics=packages.train_metrics(),
        faces=packages.faces(),
        training_images=packages.manifest(),
        comparison_grid=b"png",
        engines={},
        scenes={"beach": Scene("travel", "beach background")},
        attribute_judges={"place": {"labels": ["beach"]}},
        embedder=str(embedder),
        code={"code/valentina_pipeline/model.py": code},
        model={"MLmodel": b"flavors: {}\n"},
    )


def content(file: bytes | Path) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()


def test_it_holds_all_that_serves_the_character(parts: PackageContents) -> None:
    assert set(build(parts, DECISION)) == {
        "LICENSE",
        "MLmodel",
        "MODEL_CARD.md",
        "SHA256SUMS",
        "base.json",
        "base/model_index.json",
        "base/unet/a.safetensors",
        "base/unet/config.json",
        "comfyui.json",
        "code/valentina_pipeline/model.py",
        "concept.json",
        "decision.json",
        "faces.safetensors",
        "comparison_grid.png",
        "identity.json",
        "judges.json",
        "lora/pytorch_lora_weights.safetensors",
        "lora/valentina_moreau.kohya.safetensors",
        "metrics.json",
        "presets.json",
        "rights.json",
        "scenes.json",
    }


def test_every_file_has_its_sum(parts: PackageContents) -> None:
    files = build(parts, DECISION)
    listed = dict(line.split("  ")[::-1] for line in content(files["SHA256SUMS"]).decode().splitlines())
    others = {name: file for name, file in files.items() if name != "SHA256SUMS"}
    assert listed == {name: hashlib.sha256(content(file)).hexdigest() for name, file in others.items()}


def test_the_same_parts_give_the_same_bytes_in_any_order(parts: PackageContents) -> None:
    shuffled = parts.training_images.sample(frac=1, random_state=1)
    assert build(replace(parts, training_images=shuffled), DECISION) == build(parts, DECISION)


def test_a_base_that_is_not_embedded_is_named_with_hash_licence_and_how_to_get_it(
    parts: PackageContents,
) -> None:
    base = parts.base.model_copy(update={"bundle_in_package": False, "path": "somebody/base"})
    files = build(replace(parts, base=base), DECISION)
    assert not [name for name in files if name.startswith(("base/", "faces"))]
    described = json.loads(content(files["base.json"]))
    assert described["path"] == "somebody/base"
    assert described["sha256"] == "b" * 64
    assert described["download_instructions"] == "git checkout"


def test_her_face_leaves_as_the_mean_of_the_held_out_portraits_with_the_gates_of_the_decision(
    parts: PackageContents,
) -> None:
    vectors = np.eye(6, 4)
    faces = parts.faces.assign(embedding=list(vectors), accepted=[True, True, False, True, True, True])
    faces.loc[2, "split"] = "held_out"  # and left out: it takes no part
    said = json.loads(content(build(replace(parts, faces=faces), DECISION)["identity.json"]))
    assert said == {
        "mean": [0.5, 0.5, 0.0, 0.0],
        "portraits": 2,
        "ceiling": 0.84,
        "gate": 0.672,
        "face_detection_rate": 0.9,
    }


def test_two_parts_cannot_share_a_path(parts: PackageContents) -> None:
    with pytest.raises(ValueError, match="two files of the package have the path LICENSE"):
        build(replace(parts, model={"LICENSE": b""}), DECISION)


def test_an_empty_lora_folder_is_refused(parts: PackageContents) -> None:
    for file in parts.lora.iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="contains no LoRA"):
        build(parts, DECISION)


def test_the_content_hash_follows_lora_and_base(parts: PackageContents) -> None:
    before = content_hash(parts.lora, "b")
    assert content_hash(parts.lora, "c") != before
    file = parts.lora / "valentina_moreau.kohya.safetensors"
    tensors = load_file(file)
    save_file(tensors, file, {"note": "the same weights, described anew"})
    assert content_hash(parts.lora, "b") == before
    name = min(tensors)
    save_file(tensors | {name: tensors[name] + 1}, file)
    assert content_hash(parts.lora, "b") != before


def test_standard_is_what_the_figures_were_measured_with(parts: PackageContents) -> None:
    made = presets(parts.base, parts.evaluate, parts.publish)
    assert made["default"] == "standard"
    assert made["presets"]["standard"] == {
        "steps": parts.evaluate.num_inference_steps,
        "guidance_scale": parts.evaluate.guidance_scale,
        "size": parts.base.resolution,
        "scheduler": "default",
    }
    assert [made["presets"][name]["steps"] for name in ("draft", "high", "ultra")] == [10, 30, 50]


def test_rights_are_summed_up_by_record(parts: PackageContents) -> None:
    summary = rights_summary(parts.rights, parts.training_images)
    assert (len(summary["images"]), summary["training"], summary["held_out"]) == (6, 4, 2)
    (record,) = summary["records"]
    assert (record["id"], record["images"]) == ("valentina-moreau-2024", 6)
    assert record["uses"] == ["training", "generation", "publication"]
    fewer = rights_summary(parts.rights, parts.training_images.iloc[1:])
    assert fewer["manifest_sha256"] != summary["manifest_sha256"]


def test_the_licence_names_each_part_s_terms(parts: PackageContents) -> None:
    licence = content(build(parts, DECISION)["LICENSE"]).decode()
    assert "The LoRA in lora/: Apache-2.0." in licence
    assert "tiny/weights/base: CreativeML Open RAIL++-M." in licence
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in licence


def test_the_card_says_figures_training_rights_and_that_images_are_synthetic(parts: PackageContents) -> None:
    card = content(build(parts, DECISION)["MODEL_CARD.md"]).decode()
    assert card.startswith("---\n")
    for said in (
        "| Identity: the LoRA | 0.700 (0.660 to 0.740) |",
        "| Identity: the base model with the full description | 0.250 (0.210 to 0.290) |",
        "| clothes color | 0.300 (0.260 to 0.340) | 0.100 (0.060 to 0.140) | 0.940 (0.900 to 0.980) |",
        "## Decision: champion",
        "- It is good.",
        f"| rank | {parts.train.rank} |",
        "| valentina-moreau-2024 | Valentina Pipeline contributors | Apache-2.0 |",
        "trainedAlgorithmicMedia",
    ):
        assert said in card
    unjudged = {name: value for name, value in parts.metrics.items() if name != "attributes"}
    assert (
        "judges" not in content(build(replace(parts, metrics=unjudged), DECISION)["MODEL_CARD.md"]).decode()
    )
