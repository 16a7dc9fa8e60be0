"""Which files a base in diffusers' layout is: for loading it, for its hash, and for carrying it along."""

import re
from pathlib import Path

NETWORKS = ("text_encoder", "text_encoder_2", "unet", "vae")
"""Folders of a base's weights; SD 1.5 has one text encoder."""


def base_files(folder: Path) -> list[Path]:
    """Return the files of weights that a base in a folder is loaded from and known by, sorted.

    They are those without a variant such as `.fp16.` in their names. Where a network has none, the whole
    base is read as the variant that it has, and the networks that lack this one without: as diffusers does.
    Other files of a hub's repository do not count.
    """
    variant = base_variant(folder)
    return sorted(
        file for found in _by_variant(folder) for file in (found.get(variant) or found.get("") or ())
    )


def base_variant(folder: Path) -> str:
    """Return "", or the variant that a base has to be read as."""
    lacking = [found for found in _by_variant(folder) if found and "" not in found]
    offered = sorted({name for found in lacking for name in found}, key=lambda name: (name != "fp16", name))
    return next((name for name in offered if all(name in found for found in lacking)), "")


def _by_variant(folder: Path) -> list[dict[str, list[Path]]]:
    """Return each network's files by the variant in their names, "" for those with none."""
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
