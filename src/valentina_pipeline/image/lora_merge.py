"""LoRA files of any tool summed, made smaller, or merged into a base."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.image.adapted import load_adapter
from valentina_pipeline.image.base import BaseModel, Family
from valentina_pipeline.image.lora_algebra import Lora, Pair
from valentina_pipeline.image.lora_files import KOHYA_PREFIXES, read_metadata, serialise

if TYPE_CHECKING:
    from torch import Tensor

UNSUMMED = ("lora_magnitude_vector", "dora_scale", "lokr_", "hada_")
"""Parts of names in files of DoRAs, LoKrs and LoHas, whose updates are no product of two matrices."""

ENDS = (("lora_down.weight", "lora_up.weight"), ("lora_A.weight", "lora_B.weight"))
"""Of the names of a layer's matrices, in kohya's and in diffusers' format."""


def read_pairs(file: Path) -> dict[str, Pair]:
    """Return a LoRA by layers named as in kohya's format, such as "lora_unet_mid_block_...".

    Args:
        file: in kohya's or diffusers' format.

    Raises:
        ValueError: it is no safetensors file, or no LoRA.
    """
    from safetensors.torch import load_file

    metadata = read_metadata(file)
    tensors = load_file(file)
    if any(part in name for name in tensors for part in UNSUMMED):
        raise ValueError(f"{file} is no plain LoRA: only products of two matrices have sums and ranks")
    config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    pairs = {}
    for down, up in ENDS:
        for name, tensor in tensors.items():
            if name.endswith(f".{down}"):
                layer = name.removesuffix(f".{down}")
                scale = _scale(layer, tensor.shape[0], tensors, config)
                flat = _flat(layer, _family(tensors, metadata))
                pairs[flat] = Pair(tensor.float(), tensors[f"{layer}.{up}"].float(), scale)
    if not pairs:
        raise ValueError(f"{file} holds no LoRA in kohya's or diffusers' format")
    return pairs


def kohya_file(lora: Lora, about: Mapping[str, str]) -> bytes:
    """Return a LoRA in kohya's format, which diffusers reads too.

    Args:
        lora: by layers named as `read_pairs` names them.
        about: further metadata.
    """
    import torch

    alpha = max(pair.rank for pair in lora.values())
    tensors: dict[str, Tensor] = {}
    for layer, pair in lora.items():
        # one alpha for all, since diffusers reads no other; the rest of the scale goes into the weights
        tensors[f"{layer}.lora_down.weight"] = pair.down
        tensors[f"{layer}.lora_up.weight"] = pair.up * (pair.scale * pair.rank / alpha)
        tensors[f"{layer}.alpha"] = torch.tensor(float(alpha))
    named = {
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


def _scale(layer: str, rank: int, tensors: "Mapping[str, Tensor]", config: Mapping[str, Any]) -> float:
    if f"{layer}.alpha" in tensors:
        return tensors[f"{layer}.alpha"].item() / rank
    module, name = layer.split(".", 1) if "." in layer else ("", layer)
    if f"{module}.lora_alpha" not in config:
        return 1.0  # both formats: without an alpha it is the rank
    from peft.utils.other import get_pattern_key

    patterns = config.get(f"{module}.alpha_pattern", {})
    key = get_pattern_key(patterns.keys(), name.removeprefix("text_model."))
    alpha = patterns.get(key, config[f"{module}.lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get(f"{module}.use_rslora") else rank)


def _flat(layer: str, family: Family) -> str:
    module, _, rest = layer.partition(".")
    return f"{KOHYA_PREFIXES[family][module]}_{rest.replace('.', '_')}" if rest else layer


def _family(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> Family:
    xl = "xl" in metadata.get("modelspec.architecture", "")
    return "sdxl" if xl or any(name.startswith("text_encoder_2.") for name in tensors) else "sd15"
