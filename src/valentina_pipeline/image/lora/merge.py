"""LoRA files of any tool summed, made smaller, or merged into a base."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.image.lora.algebra import Lora, Pair, weighted_sum
from valentina_pipeline.image.lora.formats import ARCHITECTURES, serialise
from valentina_pipeline.image.lora.layer_names import kohya_name
from valentina_pipeline.image.lora.loading import load_adapter
from valentina_pipeline.image.lora.reader import LoraFile, read_lora
from valentina_pipeline.image.lora.unet_names import SDXL, Layout
from valentina_pipeline.image.models.base_model import BaseModel
from valentina_pipeline.image.models.families import Family

if TYPE_CHECKING:
    from torch import Tensor

WIDTHS: Mapping[int, Family] = {768: "sd15", 2048: "sdxl"}
"""Of the text that the published bases' cross-attention reads."""


def read_pairs(lora: LoraFile) -> dict[str, Pair]:
    """Return a plain LoRA's updates by layer.

    Raises:
        ValueError: they are no products of two matrices.
    """
    pairs = {}
    for key, layer in lora.layers.items():
        if layer.form != "lora":
            raise ValueError(
                f"{lora.file} is no plain LoRA: layer {layer.name} is of form {layer.form}, "
                "and only products of two matrices have sums and ranks"
            )
        root = math.sqrt(layer.rank) if lora.is_rslora(key[0]) else layer.rank
        down, up = (layer.parts[part].float() for part in ("lora_A", "lora_B"))
        pairs[".".join(key)] = Pair(down, up, layer.alpha / root)
    return pairs


def weighted_files(parts: Sequence[tuple[Path, float]]) -> tuple[dict[str, Pair], Family, Layout]:
    """Return the weighted sum of LoRA files, and what is known of their base.

    Raises:
        ValueError: one is no plain LoRA, or they are of different bases.
    """
    read = [read_lora(file) for file, _ in parts]
    families = {family: lora.file for lora in read if (family := _family(lora))}
    sizes = {lora.size: lora.file for lora in read if lora.size}
    if len(families) > 1 or len(sizes) > 1:
        said = " and ".join(str(file) for file in (families if len(families) > 1 else sizes).values())
        raise ValueError(f"{said} are of different bases")
    whole = weighted_sum([(read_pairs(lora), weight) for lora, (_, weight) in zip(read, parts, strict=True)])
    return whole, next(iter(families), "sd15"), Layout(next(iter(sizes), SDXL.size))


def kohya_file(lora: Lora, family: Family, layout: Layout, about: Mapping[str, str]) -> bytes:
    """Return a LoRA in kohya's format, which diffusers reads too.

    Args:
        lora: by layers named as `read_pairs` names them.
        family: of its base.
        layout: of its base's U-Net.
        about: further metadata.
    """
    import torch

    alpha = max(pair.rank for pair in lora.values())
    tensors: dict[str, Tensor] = {}
    for key, pair in lora.items():
        network, _, flat = key.partition(".")
        layer = kohya_name((network, flat), family, layout)
        # one alpha for all, since diffusers reads no other; the rest of the scale goes into the weights
        tensors[f"{layer}.lora_down.weight"] = pair.down
        tensors[f"{layer}.lora_up.weight"] = pair.up * (pair.scale * pair.rank / alpha)
        tensors[f"{layer}.alpha"] = torch.tensor(float(alpha))
    architecture, version = ARCHITECTURES[family]
    named = {
        "modelspec.architecture": architecture,
        "ss_base_model_version": version,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(alpha),
        "ss_network_alpha": str(alpha),
    }
    return serialise(tensors, {**about, **named, "format": "pt"})


def merge(base: BaseModel, parts: Sequence[tuple[Path, float]]) -> Any:
    """Return the base's pipeline with LoRAs, DoRAs or LoKrs merged into its own weights.

    Args:
        base: changed in place.
        parts: files, and how much of each.
    """
    for file, weight in parts:
        load_adapter(base, file)
        base.pipe.fuse_lora(components=["unet", *base.text_encoders], lora_scale=weight, safe_fusing=True)
        base.pipe.unload_lora_weights()
    return base.pipe


def _family(lora: LoraFile) -> Family | None:
    """Return the family that a file's layers, or where they leave it open its metadata, say."""
    crossed = [
        layer for (_, flat), layer in lora.layers.items() if flat.endswith(("attn2_to_k", "attn2_to_v"))
    ]
    if crossed and (width := crossed[0].parts["lora_A"].shape[1]) in WIDTHS:
        return WIDTHS[width]
    said = lora.metadata.get("modelspec.architecture", "") + lora.metadata.get("ss_base_model_version", "")
    names = " ".join(layer.name for layer in lora.layers.values())
    if re.search("text_encoder_2|clip_g|lora_te[12]_|(in|out)put_blocks", names) or "xl" in said:
        return "sdxl"
    return "sd15" if said or "lora_te_" in names else None
