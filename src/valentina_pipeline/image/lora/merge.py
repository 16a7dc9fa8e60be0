"""Merge LoRA files of any tool: sum them, or fuse them into a base model."""

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
"""Width of the text embeddings in the cross-attention -> family of published base models."""


def read_pairs(lora: LoraFile) -> dict[str, Pair]:
    """Return a plain LoRA's updates by layer.

    Raises:
        ValueError: the file is a DoRA, LoHa or LoKr.
    """
    pairs = {}
    for key, layer in lora.layers.items():
        if layer.form != "lora":
            raise ValueError(
                f"{lora.file} is not a plain LoRA: layer {layer.name} has form {layer.form}; only a LoRA, "
                "a product of two matrices, can be summed and resized"
            )
        root = math.sqrt(layer.rank) if lora.is_rslora(key[0]) else layer.rank
        down, up = (layer.parts[part].float() for part in ("lora_A", "lora_B"))
        pairs[".".join(key)] = Pair(down, up, layer.alpha / root)
    return pairs


def weighted_files(parts: Sequence[tuple[Path, float]]) -> tuple[dict[str, Pair], Family, Layout]:
    """Return the weighted sum of LoRA files, and the family and U-Net layout of their base model.

    Raises:
        ValueError: a file is not a plain LoRA, or the base models differ.
    """
    loras = [read_lora(file) for file, _ in parts]
    families = {family: lora.file for lora in loras if (family := _family(lora))}
    sizes = {lora.size: lora.file for lora in loras if lora.size}
    if len(families) > 1 or len(sizes) > 1:
        files = " and ".join(str(file) for file in (families if len(families) > 1 else sizes).values())
        raise ValueError(f"{files} belong to different base models")
    total = weighted_sum([(read_pairs(lora), weight) for lora, (_, weight) in zip(loras, parts, strict=True)])
    return total, next(iter(families), "sd15"), Layout(next(iter(sizes), SDXL.size))


def kohya_file(lora: Lora, family: Family, layout: Layout, about: Mapping[str, str]) -> bytes:
    """Return a LoRA in kohya's format, which diffusers also reads.

    Args:
        lora: LoRA by layer names of `read_pairs`.
        family: family of its base model.
        layout: layout of its base model's U-Net.
        about: additional metadata.
    """
    import torch

    alpha = max(pair.rank for pair in lora.values())
    tensors: dict[str, Tensor] = {}
    for key, pair in lora.items():
        network, _, flat = key.partition(".")
        layer = kohya_name((network, flat), family, layout)
        # diffusers reads only one alpha for all layers; the rest of the scale goes into the weights
        tensors[f"{layer}.lora_down.weight"] = pair.down
        tensors[f"{layer}.lora_up.weight"] = pair.up * (pair.scale * pair.rank / alpha)
        tensors[f"{layer}.alpha"] = torch.tensor(float(alpha))
    architecture, version = ARCHITECTURES[family]
    metadata = {
        "modelspec.architecture": architecture,
        "ss_base_model_version": version,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(alpha),
        "ss_network_alpha": str(alpha),
    }
    return serialise(tensors, {**about, **metadata, "format": "pt"})


def fuse(base: BaseModel, parts: Sequence[tuple[Path, float]]) -> Any:
    """Fuse LoRAs, DoRAs or LoKrs into a base model's weights and return its pipeline.

    Args:
        base: base model, changed in place.
        parts: files with their weights.
    """
    for file, weight in parts:
        load_adapter(base, file)
        base.pipe.fuse_lora(components=["unet", *base.text_encoders], lora_scale=weight, safe_fusing=True)
        base.pipe.unload_lora_weights()
    return base.pipe


def _family(lora: LoraFile) -> Family | None:
    """Return the base model's family by a file's layers and metadata, or None if unknown."""
    cross_attention = [
        layer for (_, flat), layer in lora.layers.items() if flat.endswith(("attn2_to_k", "attn2_to_v"))
    ]
    if cross_attention and (width := cross_attention[0].parts["lora_A"].shape[1]) in WIDTHS:
        return WIDTHS[width]
    model = lora.metadata.get("modelspec.architecture", "") + lora.metadata.get("ss_base_model_version", "")
    names = " ".join(layer.name for layer in lora.layers.values())
    if re.search("text_encoder_2|clip_g|lora_te[12]_|(in|out)put_blocks", names) or "xl" in model:
        return "sdxl"
    return "sd15" if model or "lora_te_" in names else None
