"""How other programs draw what the package's default preset draws: ComfyUI and stable-diffusion.cpp."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.domain.concept import Concept, photo_of

SCENE = "smiling, wearing a red dress, beach background"
SEED = 1

SAMPLERS: Mapping[str, tuple[str, str, str, str]] = {
    "base": ("euler", "normal", "euler", "discrete"),  # which SDXL ships with
    "euler": ("euler", "normal", "euler", "discrete"),
    "euler_a": ("euler_ancestral", "normal", "euler_a", "discrete"),
    "dpm++": ("dpmpp_2m", "normal", "dpm++2m", "discrete"),
    "dpm++_karras": ("dpmpp_2m", "karras", "dpm++2m", "karras"),
    "ddim": ("ddim", "ddim_uniform", "ddim_trailing", "discrete"),
    "lcm": ("lcm", "sgm_uniform", "lcm", "lcm"),
}
"""Our name -> ComfyUI's sampler and scheduler, stable-diffusion.cpp's method and scheduler."""

PUBLISHED = {
    "stabilityai/stable-diffusion-xl-base-1.0": "sd_xl_base_1.0.safetensors",
    "stabilityai/sdxl-turbo": "sd_xl_turbo_1.0_fp16.safetensors",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "v1-5-pruned-emaonly.safetensors",
}
"""Bases by hub id -> the one file that their hub repository holds for ComfyUI."""

WIDTHS = {"sdxl": ([320, 640, 1280], 2048), "sd15": ([320, 640, 1280, 1280], 768)}
"""Of the U-Net's blocks and the text that it reads: ComfyUI tells bases by them and loads no other."""


@dataclass(frozen=True)
class Checkpoint:
    """A base as ComfyUI looks for it.

    Attributes:
        file: its name in ComfyUI's folder models/checkpoints.
        origin: where that file is from, in words.
        known: whether ComfyUI knows bases of its widths.
    """

    file: str
    origin: str
    known: bool

    @property
    def location(self) -> str:
        """What somebody has to know who looks for the file."""
        if not self.known:
            return "a base of widths that ComfyUI does not know: it cannot load it"
        return f"models/checkpoints/{self.file}, {self.origin}"


def checkpoint(base: BaseConfig, folder: Path) -> Checkpoint:
    """Return a base as ComfyUI looks for it.

    Args:
        base: as configured.
        folder: its weights, or the one file that holds them.
    """
    last = base.path.rstrip("/").rpartition("/")[2]
    if base.path in PUBLISHED:
        return Checkpoint(PUBLISHED[base.path], f"which {base.path} holds", True)
    if last.endswith(".safetensors"):
        return Checkpoint(last, "the base itself", True)
    made = f"which `kedro base single-file` makes of {base.path}"
    try:
        unet = json.loads((folder / "unet/config.json").read_text("utf-8"))
    except (OSError, ValueError):  # a base in one file; whoever loads a damaged one says so
        unet = {}
    widths = unet.get("block_out_channels"), unet.get("cross_attention_dim")
    return Checkpoint(f"{last}.safetensors", made, not unet or widths == WIDTHS[base.family])


@dataclass(frozen=True)
class ExampleImage:
    """One image, as other programs are told of it.

    Attributes:
        prompt: with trigger and class word.
        steps: of the sampler.
        guidance: scale of classifier-free guidance; 1 is none.
        size: width and height in pixels.
        scheduler: a key of SAMPLERS.
    """

    prompt: str
    steps: int
    guidance: float
    size: int
    scheduler: str


def example_image(person: Concept, preset: Mapping[str, Any]) -> ExampleImage:
    """Return what a preset draws of a character."""
    prompt = f"{photo_of(f'{person.trigger} {person.class_word}')}, {SCENE}"
    return ExampleImage(
        prompt, preset["steps"], max(1.0, preset["guidance"]), preset["size"], preset["scheduler"]
    )


def comfyui(image: ExampleImage, base: Checkpoint, lora: str) -> dict[str, Any]:
    """Return a workflow in the format of ComfyUI's API: node number -> class and inputs.

    Args:
        image: what it draws.
        base: what it draws with.
        lora: name of the file in kohya's format, which it looks for in models/loras.
    """
    sampler, scheduler, *_ = SAMPLERS[image.scheduler]
    model, clip, vae = ["2", 0], ["2", 1], ["1", 2]
    nodes: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("CheckpointLoaderSimple", base.location, {"ckpt_name": base.file}),
        (
            "LoraLoader",
            f"the character: this package's lora/{lora} in models/loras",
            {"model": ["1", 0], "clip": ["1", 1], "lora_name": lora}
            | dict.fromkeys(("strength_model", "strength_clip"), 1.0),
        ),
        ("CLIPTextEncode", "what it shows", {"text": image.prompt, "clip": clip}),
        ("CLIPTextEncode", "what it does not show", {"text": "", "clip": clip}),
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
                "cfg": image.guidance,
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


def native(image: ExampleImage, file: str) -> str:
    """Return the text beside the one file for stable-diffusion.cpp: the command that draws with it."""
    *_, method, scheduler = SAMPLERS[image.scheduler]
    size = str(image.size)
    options = {
        "-m": file, "-p": image.prompt, "--steps": str(image.steps), "--cfg-scale": f"{image.guidance:g}",
        "--sampling-method": method, "--scheduler": scheduler, "-W": size, "-H": size,
        "--rng": "cpu", "-s": str(SEED), "-o": "image.png",
    }  # fmt: skip
    command = shlex.join(["sd-cli", *(word for pair in options.items() for word in pair)])
    return f"""stable-diffusion.cpp (https://github.com/leejet/stable-diffusion.cpp) draws with {file} alone:
base and LoRA are in it, in float16, named as in Stability's own files. In this folder:

    {command}

`--rng cpu` takes its noise as PyTorch does. What it draws carries none of this project's marks, passes no
content filter, and has to be marked as generated by whoever publishes it. It knows bases of the widths of
SD 1.5 and SDXL, so not the tiny base that tests of this project draw with.
"""
