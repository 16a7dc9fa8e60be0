"""What other programs are told: ComfyUI's nodes as it defines them, and stable-diffusion.cpp's options."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import packages
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.samplers import SAMPLERS
from valentina_pipeline.release.external_tools import (
    PUBLISHED,
    WIDTHS,
    Checkpoint,
    ExampleImage,
    checkpoint,
    comfyui,
    example_image,
    sd_cpp,
)

# ComfyUI 0.3.64, nodes.py: what each node needs, and what it gives, by kind. Numbers: (least, most, step).
NODES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "CheckpointLoaderSimple": ({"ckpt_name": "file"}, ("MODEL", "CLIP", "VAE")),
    "LoraLoader": (
        {
            "model": "MODEL",
            "clip": "CLIP",
            "lora_name": "file",
            "strength_model": (-100.0, 100.0, 0.01),
            "strength_clip": (-100.0, 100.0, 0.01),
        },
        ("MODEL", "CLIP"),
    ),
    "CLIPTextEncode": ({"text": "text", "clip": "CLIP"}, ("CONDITIONING",)),
    "EmptyLatentImage": (
        {"width": (16, 16384, 8), "height": (16, 16384, 8), "batch_size": (1, 4096, 1)},
        ("LATENT",),
    ),
    "KSampler": (
        {
            "model": "MODEL",
            "seed": (0, 2**64 - 1, 1),
            "steps": (1, 10000, 1),
            "cfg": (0.0, 100.0, 0.1),
            "sampler_name": {"euler", "euler_ancestral", "dpmpp_2m", "ddim", "lcm"},  # of those it has
            "scheduler": {"normal", "karras", "ddim_uniform", "sgm_uniform"},
            "positive": "CONDITIONING",
            "negative": "CONDITIONING",
            "latent_image": "LATENT",
            "denoise": (0.0, 1.0, 0.01),
        },
        ("LATENT",),
    ),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, ("IMAGE",)),
    "SaveImage": ({"images": "IMAGE", "filename_prefix": "text"}, ()),
}

# stable-diffusion.cpp, commit 97d2990: of the names that its options take
METHODS = {"euler", "euler_a", "dpm++2m", "lcm", "ddim_trailing"}
SCHEDULES = {"discrete", "karras", "lcm"}


KNOWN = Checkpoint("base-xl.safetensors", "made", True)


def image(**changes: Any) -> ExampleImage:
    preset = {"steps": 20, "guidance_scale": 1.5, "size": 128, "scheduler": "default", **changes}
    return example_image(Concept(**packages.concept()), preset)


@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_the_workflow_has_what_comfyui_s_nodes_need_and_nothing_else(scheduler: str) -> None:
    nodes = comfyui(image(scheduler=scheduler), KNOWN, "vee.kohya.safetensors")
    for node in nodes.values():
        needed, _ = NODES[node["class_type"]]
        assert node["inputs"].keys() == needed.keys()
        for name, value in node["inputs"].items():
            match needed[name]:
                case (least, most, step):
                    assert type(value) is type(least)
                    assert least <= value <= most
                    assert value % step == 0 or isinstance(value, float)
                case "file":
                    assert value.endswith(".safetensors")
                    assert "/" not in value
                case "text":
                    assert isinstance(value, str)
                case set() as names:
                    assert value in names
                case kind:
                    number, output = value
                    _, given = NODES[nodes[number]["class_type"]]
                    assert given[output] == kind
    kinds = [node["class_type"] for node in nodes.values()]
    assert kinds.count("SaveImage") == kinds.count("KSampler") == 1


def test_the_workflow_draws_what_the_preset_does_with_base_and_lora() -> None:
    nodes = comfyui(image(guidance_scale=0.0), KNOWN, "vee.kohya.safetensors")
    inputs = {node["class_type"]: node["inputs"] for node in reversed(nodes.values())}
    assert inputs["CheckpointLoaderSimple"]["ckpt_name"] == "base-xl.safetensors"
    titles = {node["class_type"]: node["_meta"]["title"] for node in nodes.values()}
    assert titles["CheckpointLoaderSimple"] == "models/checkpoints/base-xl.safetensors, made"
    assert "lora/vee.kohya.safetensors in models/loras" in titles["LoraLoader"]
    assert inputs["LoraLoader"]["lora_name"] == "vee.kohya.safetensors"
    assert inputs["CLIPTextEncode"]["text"].startswith("photo of a valentina_moreau woman, smiling")
    assert inputs["EmptyLatentImage"] == {"width": 128, "height": 128, "batch_size": 1}
    assert (inputs["KSampler"]["steps"], inputs["KSampler"]["cfg"]) == (20, 1.0)  # 1 is no guidance
    sampler = nodes[nodes["7"]["inputs"]["samples"][0]]["inputs"]
    assert nodes[sampler["model"][0]]["class_type"] == "LoraLoader"  # and not the bare base


@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_the_command_line_has_names_that_stable_diffusion_cpp_knows(scheduler: str) -> None:
    text = sd_cpp(image(scheduler=scheduler), "model.safetensors")
    (line,) = (line.split() for line in text.splitlines() if line.startswith("    sd-cli"))
    assert line[line.index("--sampling-method") + 1] in METHODS
    assert line[line.index("--scheduler") + 1] in SCHEDULES
    assert line[line.index("-m") + 1] == "model.safetensors"
    assert "'photo of a valentina_moreau woman, smiling, wearing a red dress, beach background'" in text


def test_comfyui_is_told_the_published_file_or_how_to_make_one(tmp_path: Path) -> None:
    bases = yaml.safe_load((packages.ROOT / "conf/base/bases.yml").read_text("utf-8"))
    files = {
        "sdxl": "sd_xl_base_1.0",
        "sdxl_turbo": "sd_xl_turbo_1.0_fp16",
        "sd15": "v1-5-pruned-emaonly",
    }
    for family, file in files.items():
        published = checkpoint(BaseConfig(**bases[family]["model"]), tmp_path)
        assert (published.file, published.known) == (f"{file}.safetensors", True)
        assert published.file == PUBLISHED[bases[family]["model"]["path"]]
    own = BaseConfig(**{**bases["sdxl"]["model"], "path": "models/my-xl"})
    (tmp_path / "unet").mkdir()
    widths, text = WIDTHS["sdxl"]
    settings = {"block_out_channels": widths, "cross_attention_dim": text}
    (tmp_path / "unet/config.json").write_text(json.dumps(settings))
    assert checkpoint(own, tmp_path).location == (
        "models/checkpoints/my-xl.safetensors, written by `kedro base single-file` from models/my-xl"
    )
    (tmp_path / "unet/config.json").write_text(json.dumps({**settings, "cross_attention_dim": 96}))
    assert (
        checkpoint(own, tmp_path).location
        == "ComfyUI cannot load this base model: it does not know its widths"
    )
    file = BaseConfig(**{**bases["sdxl"]["model"], "path": "models/my.safetensors"})
    assert (
        checkpoint(file, tmp_path).location == "models/checkpoints/my.safetensors, the base model's own file"
    )
