"""Settings that make ComfyUI and stable-diffusion.cpp generate the same as a package's default preset."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.domain.concept import Concept, photo_of
from valentina_pipeline.domain.samplers import SAMPLERS

SCENE = "smiling, wearing a red dress, beach background"
SEED = 1

PUBLISHED = {
    "stabilityai/stable-diffusion-xl-base-1.0": "sd_xl_base_1.0.safetensors",
    "stabilityai/sdxl-turbo": "sd_xl_turbo_1.0_fp16.safetensors",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "v1-5-pruned-emaonly.safetensors",
}
"""Hub id of a base model -> the single file for ComfyUI in its hub repository."""

WIDTHS = {"sdxl": ([320, 640, 1280], 2048), "sd15": ([320, 640, 1280, 1280], 768)}
"""Widths of the U-Net's blocks and of its text input: ComfyUI identifies base models by them."""


@dataclass(frozen=True)
class Checkpoint:
    """A base model as ComfyUI loads it.

    Attributes:
        file: file name in ComfyUI's folder models/checkpoints.
        origin: source of that file, in words.
        known: True if ComfyUI knows base models of these widths.
    """

    file: str
    origin: str
    known: bool

    @property
    def location(self) -> str:
        """Path and origin of the file, in words."""
        if not self.known:
            return "ComfyUI cannot load this base model: it does not know its widths"
        return f"models/checkpoints/{self.file}, {self.origin}"


def checkpoint(base: BaseConfig, folder: Path) -> Checkpoint:
    """Return a base model as ComfyUI loads it.

    Args:
        base: the base model, as configured.
        folder: the folder of its weights, or its single file.
    """
    last = base.path.rstrip("/").rpartition("/")[2]
    if base.path in PUBLISHED:
        return Checkpoint(PUBLISHED[base.path], f"from {base.path}", True)
    if last.endswith(".safetensors"):
        return Checkpoint(last, "the base model's own file", True)
    origin = f"written by `kedro base single-file` from {base.path}"
    try:
        unet = json.loads((folder / "unet/config.json").read_text("utf-8"))
    except (OSError, ValueError):  # a base in one file; a damaged one fails when it is loaded
        unet = {}
    widths = unet.get("block_out_channels"), unet.get("cross_attention_dim")
    return Checkpoint(f"{last}.safetensors", origin, not unet or widths == WIDTHS[base.family])


@dataclass(frozen=True)
class ExampleImage:
    """Settings of one image, for other programs.

    Attributes:
        prompt: prompt with trigger and class word.
        steps: sampler steps.
        guidance_scale: scale of classifier-free guidance; 1 turns it off.
        size: width and height in pixels.
        scheduler: name of the sampler.
    """

    prompt: str
    steps: int
    guidance_scale: float
    size: int
    scheduler: str


def example_image(character: Concept, preset: Mapping[str, Any]) -> ExampleImage:
    """Return the settings of an example image of a character by a preset."""
    prompt = f"{photo_of(f'{character.trigger} {character.class_word}')}, {SCENE}"
    return ExampleImage(
        prompt, preset["steps"], max(1.0, preset["guidance_scale"]), preset["size"], preset["scheduler"]
    )


def comfyui(image: ExampleImage, base: Checkpoint, lora: str) -> dict[str, Any]:
    """Return a workflow in the format of ComfyUI's API: node number -> class and inputs.

    Args:
        image: settings of the image.
        base: the base model.
        lora: name of the LoRA file in kohya's format; ComfyUI looks for it in models/loras.
    """
    sampler, scheduler = SAMPLERS[image.scheduler].comfyui
    model, clip, vae = ["2", 0], ["2", 1], ["1", 2]
    nodes: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("CheckpointLoaderSimple", base.location, {"ckpt_name": base.file}),
        (
            "LoraLoader",
            f"the character: this package's lora/{lora} in models/loras",
            {"model": ["1", 0], "clip": ["1", 1], "lora_name": lora}
            | dict.fromkeys(("strength_model", "strength_clip"), 1.0),
        ),
        ("CLIPTextEncode", "prompt", {"text": image.prompt, "clip": clip}),
        ("CLIPTextEncode", "negative prompt", {"text": "", "clip": clip}),
        ("EmptyLatentImage", "size", {"width": image.size, "height": image.size, "batch_size": 1}),
        (
            "KSampler",
            "sampler",
            {
                "model": model,
                "positive": ["3", 0],
                "negative": ["4", 0],
                "latent_image": ["5", 0],
                "seed": SEED,
                "steps": image.steps,
                "cfg": image.guidance_scale,
                "sampler_name": sampler,
                "scheduler": scheduler,
                "denoise": 1.0,
            },
        ),
        ("VAEDecode", "pixels", {"samples": ["6", 0], "vae": vae}),
        ("SaveImage", "file", {"images": ["7", 0], "filename_prefix": lora.partition(".")[0]}),
    )
    return {
        str(number): {"class_type": kind, "_meta": {"title": title}, "inputs": inputs}
        for number, (kind, title, inputs) in enumerate(nodes, start=1)
    }


def sd_cpp(image: ExampleImage, file: str) -> str:
    """Return the README beside the single file for stable-diffusion.cpp, with the command to run."""
    method, scheduler = SAMPLERS[image.scheduler].sd_cpp
    size = str(image.size)
    options = {
        "-m": file, "-p": image.prompt, "--steps": str(image.steps),
        "--cfg-scale": f"{image.guidance_scale:g}", "--sampling-method": method, "--scheduler": scheduler,
        "-W": size, "-H": size, "--rng": "cpu", "-s": str(SEED), "-o": "image.png",
    }  # fmt: skip
    command = shlex.join(["sd-cli", *(word for pair in options.items() for word in pair)])
    return f"""stable-diffusion.cpp (https://github.com/leejet/stable-diffusion.cpp) needs only {file}:
it contains base model and LoRA, merged, in float16, under Stability's tensor names. In this folder run:

    {command}

`--rng cpu` generates the same noise as PyTorch. Its images carry no watermark or metadata of this project
and pass no content filter: whoever publishes them must label them as generated. stable-diffusion.cpp
supports the widths of SD 1.5 and SDXL, so it cannot load the tiny base model of this project's tests.
"""
