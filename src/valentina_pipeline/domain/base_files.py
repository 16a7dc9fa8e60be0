"""Weight files of a base model in diffusers' layout: those to load, to hash and to bundle."""

import re
from pathlib import Path

NETWORKS = ("text_encoder", "text_encoder_2", "unet", "vae")
"""Folders of a base model's weights; SD 1.5 has only one text encoder."""

CONTROLNET_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
"""Files of a ControlNet's folder."""


def base_files(folder: Path) -> list[Path]:
    """Return the weight files that a base model is loaded from and hashed by, sorted.

    Files without a variant such as `.fp16.` in their names are used. If a network has none, its variant is
    used for the whole base model; networks that lack this variant use their files without one. diffusers
    does the same. Other files of a hub repository do not count.
    """
    variant = base_variant(folder)
    return sorted(
        file for found in _by_variant(folder) for file in (found.get(variant) or found.get("") or ())
    )


def base_variant(folder: Path) -> str:
    """Return the variant that a base model must be loaded as, or ""."""
    lacking = [found for found in _by_variant(folder) if found and "" not in found]
    offered = sorted({name for found in lacking for name in found}, key=lambda name: (name != "fp16", name))
    return next((name for name in offered if all(name in found for found in lacking)), "")


def _by_variant(folder: Path) -> list[dict[str, list[Path]]]:
    """Return each network's files by the variant in their names, or by "" without one."""
    networks = []
    for part in NETWORKS:
        found: dict[str, list[Path]] = {}
        for file in (folder / part).glob("*.safetensors"):
            # model.safetensors, model-00001-of-00002.safetensors, model.fp16(-00001-of-00002).safetensors
            named = re.fullmatch(r"[^.]+(?:\.([^.]+?))?(?:-\d+-of-\d+)?", file.stem)
            if named:
                found.setdefault(named[1] or "", []).append(file)
        networks.append(found)
    return networks
