"""`kedro package` and `kedro base`: what exists already, made into what others read."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

import packages
import tiny_bases
from valentina_pipeline.cli import cli
from valentina_pipeline.domain.artifacts import LORA_FILE
from valentina_pipeline.serving.inference.engine import InferenceEngine
from valentina_pipeline.serving.inference.package import read
from valentina_pipeline.serving.inference.request import GenerationRequest
from valentina_pipeline.serving.jobs.quality_monitor import QualityMonitor

RECORD = {
    "id": "ada-2026",
    "holder": "Ada",
    "covers": "ada*.safetensors",
    "uses": ["generation"],
    "license": "CC0-1.0",
    "synthetic": True,
    "evidence": "a letter",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with one base, a random one, and one LoRA of it with a ledger."""
    entries = yaml.safe_load((packages.ROOT / "conf/base/bases.yml").read_text("utf-8"))
    (tmp_path / "conf/base/prompts").mkdir(parents=True)
    (tmp_path / "conf/base/bases.yml").write_text(
        yaml.safe_dump({"small": {**entries["tiny"], "model": packages.base()}, "sd15": entries["sd15"]})
    )
    scenes = (packages.ROOT / "conf/base/prompts/scenes.yml").read_text("utf-8")
    (tmp_path / "conf/base/prompts/scenes.yml").write_text(scenes, "utf-8")
    (tmp_path / "ada.safetensors").write_bytes((packages.lora() / LORA_FILE).read_bytes())
    (tmp_path / "rights.yml").write_text(yaml.safe_dump([RECORD]))
    return tmp_path


def kedro(root: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)], obj=SimpleNamespace(project_path=root))


def packaged(root: Path, lora: str = "ada.safetensors", trigger: str = "ada") -> Result:
    options = ("--rights", root / "rights.yml", "--trigger", trigger, "--output", root / "out")
    return kedro(root, "package", "small", root / lora, *options, "--class-word", "woman")


def test_a_base_and_a_lora_become_a_package_that_draws_and_says_what_is_not_measured(root: Path) -> None:
    done = packaged(root)
    assert done.exit_code == 0, done.output
    assert "under record ada-2026; not measured" in done.output
    about = read(root / "out")
    assert (about.trigger, about.class_word, about.records) == ("ada", "woman", ("ada-2026",))
    assert about.identity is None
    assert QualityMonitor(about).failing == ""
    card = (root / "out/MODEL_CARD.md").read_text("utf-8")
    assert "Not measured: neither identity" in card
    assert "| ada-2026 | Ada |" in card
    assert "comparison_grid.png" not in card
    for name in ("metrics", "identity"):
        assert json.loads((root / f"out/{name}.json").read_text()) == {"status": "not measured"}
    workflow = json.loads((root / "out/comfyui.json").read_text())
    assert workflow["2"]["inputs"]["lora_name"] == "ada.kohya.safetensors"
    assert "ComfyUI cannot load this base model" in workflow["1"]["_meta"]["title"]
    assert load_file(root / "out/lora/ada.kohya.safetensors")
    (bare,) = InferenceEngine.open(root / "out").generate(
        GenerationRequest(prompt="smiling", preset="draft", seed=3, loras=[{"name": "ada", "weight": 0}])  # type: ignore[list-item]
    )
    (drawn,) = InferenceEngine.open(root / "out").generate(
        GenerationRequest(prompt="smiling", preset="draft", seed=3)
    )
    assert drawn.image is not None
    assert bare.image is not None
    assert drawn.identity is None
    assert drawn.image.tobytes() != bare.image.tobytes()


def test_what_may_not_or_cannot_be_packaged_is_refused_by_name(root: Path) -> None:
    name = "lora_unet_down_blocks_7_attentions_0_proj_in"
    strange = {f"{name}.lora_down.weight": torch.ones(1, 4), f"{name}.lora_up.weight": torch.ones(4, 1)}
    save_file(strange, root / "ada-strange.safetensors")
    assert (
        "ada-strange.safetensors: the sdxl base model has no layer for 1"
        in packaged(root, "ada-strange.safetensors").output
    )
    assert "the character.trigger" in packaged(root, trigger="Ada!").output
    changes = {
        "rights for another purpose": {"uses": ["training"]},
        "rights revoked": {"revoked": "2026-01-01", "revocation": "asked for"},
        "rights expired": {"expires": "2020-01-01"},
        "no rights record": {"covers": "eve.safetensors"},
    }
    for said, change in changes.items():
        (root / "rights.yml").write_text(yaml.safe_dump([{**RECORD, **change}]))
        refused = packaged(root)
        assert refused.exit_code == 1
        assert said in refused.output
    assert not (root / "out").exists()
    options = ("--rights", root / "rights.yml", "--trigger", "ada", "--output", root / "out")
    assert (
        "must be an entry of conf/base/bases.yml (sd15, small)"
        in kedro(root, "package", "large", root / "ada.safetensors", *options).output
    )


def test_a_base_in_a_folder_becomes_one_file(root: Path) -> None:
    output = root / "models/one.safetensors"
    done = kedro(root, "base", "single-file", tiny_bases.sd15_folder(), output)
    assert done.exit_code == 0, done.output
    assert "it cannot load this base" in done.output  # whose widths are not those of SD 1.5
    tensors = load_file(output)
    assert "model.diffusion_model.input_blocks.0.0.weight" in tensors
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float16}
    again = kedro(root, "base", "single-file", "small", output)
    assert again.exit_code == 1
    assert "choose the name of a new .safetensors file" in again.output
