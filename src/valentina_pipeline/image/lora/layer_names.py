"""Canonical names of the layers in LoRA files of any tool.

A canonical name is the network and diffusers' name with underscores instead of dots ("flat"), such as
("unet", "mid_block_attentions_0_proj_in"). The parts of a layer have the names that peft and LyCORIS use.
"""

import re
from collections.abc import Sequence
from contextlib import suppress

from valentina_pipeline.image.lora.unet_names import SDXL, Layout, diffusers_name, original_name
from valentina_pipeline.image.models.families import Family

Layer = tuple[str, str]
"""Network's name in a pipeline, and the layer's flat name in the network."""

NETWORKS = {
    "lora_unet_": "unet",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te_": "text_encoder",
    "lycoris_": "unet",
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "model.diffusion_model.": "unet",
    "diffusion_model.": "unet",
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
    "clip_l.transformer.": "text_encoder",
    "clip_g.transformer.": "text_encoder_2",
}
"""Prefixes of layer names in the files of kohya, LyCORIS, diffusers and ComfyUI -> network."""

UNET_BLOCKS = (
    r"(down_blocks|mid_block|up_blocks|input_blocks|middle_block|output_blocks|conv_|time_emb|add_emb)"
)
"""Prefixes of the U-Net's layer names in files that do not name the network."""

PARTS = {
    **dict.fromkeys(
        (
            ".lora_down.weight", ".lora_A.weight", ".lora_A.default.weight",
            ".lora.down.weight", "_lora.down.weight", ".lora_linear_layer.down.weight",
        ),
        "lora_A",
    ),
    **dict.fromkeys(
        (
            ".lora_up.weight", ".lora_B.weight", ".lora_B.default.weight",
            ".lora.up.weight", "_lora.up.weight", ".lora_linear_layer.up.weight",
        ),
        "lora_B",
    ),
    **dict.fromkeys((".lora.alpha", "_lora.alpha", ".alpha"), "alpha"),
    **dict.fromkeys((".lora_magnitude_vector.weight", ".lora_magnitude_vector"), "magnitude"),
    ".dora_scale": "dora_scale",
    ".lora_mid.weight": "lora_mid",
    **{f".hada_{end}": f"hada_{end}" for end in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f".lokr_{end}": f"lokr_{end}" for end in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
}  # fmt: skip
"""Suffix of a tensor's name -> part of the layer."""

UNSUPPORTED = {
    r"^bundle_emb\.|string_to_param|^emb_params$|^clip_[lg]$": "a textual inversion",
    r"\.b?oft_|\.vec$": "an OFT",
    r"\.(a1|a2|b1|b2|bm)\.weight$": "a GLoRA",
    r"\.on_input$": "an (IA)3",
    r"\.(diff|diff_b|w_norm|b_norm)$": "a full weight difference (LyCORIS full or norm)",
    r"\.lora_\w+(\.\w+)?\.bias$": "a bias",
}
"""Patterns of tensor names that are not supported -> their kind."""

OTHER_BASES = {
    r"(double|single)_blocks|single_transformer_blocks": "Flux",
    r"joint_blocks|lora_te3_": "Stable Diffusion 3",
    r"lora_prior_": "Stable Cascade",
    r"^(base_model\.model\.|diffusion_model\.|lora_unet_)?(blocks|layers|transformer)[._]|^transformer\.": (
        "a diffusion transformer, such as Flux, SD 3, Wan or Qwen-Image"
    ),
}
"""Patterns of layer names -> base models of unsupported architectures."""


def split_name(name: str) -> tuple[str, str]:
    """Return the layer and the part of a tensor's name, such as ("lora_unet_conv_in", "lora_A").

    Raises:
        ValueError: the tensor does not belong to a LoRA, DoRA, LoHa or LoKr.
    """
    for end, part in PARTS.items():
        if name.endswith(end):
            return name.removesuffix(end), part
    kind = next(
        (kind for pattern, kind in UNSUPPORTED.items() if re.search(pattern, name)), "of an unknown kind"
    )
    raise ValueError(f"tensor {name} is {kind}; only LoRA, DoRA, LoHa and LoKr are supported")


def split_layer(name: str) -> Layer:
    """Return the network and the flat name, which may be Stability's, of a layer's name in a file.

    Raises:
        ValueError: the layer belongs to a base model of another architecture.
    """
    for pattern, base in OTHER_BASES.items():
        if re.search(pattern, name):
            raise ValueError(f"layer {name} belongs to {base}; only LoRAs of SD 1.5 and SDXL are supported")
    plain = name.removeprefix("base_model.model.")
    for start, network in NETWORKS.items():
        if plain.startswith(start):
            return network, _flat(plain.removeprefix(start), network)
    if re.match(UNET_BLOCKS, plain):
        return "unet", _flat(plain, "unet")
    if plain.startswith(("text_model.", "text_model_")):
        return "text_encoder", _flat(plain, "text_encoder")
    raise ValueError(f"layer {name} belongs to none of the networks of SD 1.5 and SDXL")


def _flat(name: str, network: str) -> str:
    flat = name.replace(".", "_").replace("_processor_", "_")
    if network == "unet":
        return f"{flat}_0" if flat.endswith("_to_out") else flat
    flat = re.sub(r"self_attn_to_([qkv])$", r"self_attn_\1_proj", flat)
    flat = re.sub(r"self_attn_to_out$", "self_attn_out_proj", flat)
    return flat if flat.startswith(("text_model_", "text_projection")) else f"text_model_{flat}"


def one_name(layer: Layer, size: int) -> Layer:
    """Return the canonical name of a layer; `size` is the size of the U-Net's `Layout`."""
    network, flat = layer
    return (network, diffusers_name(flat, size)) if network == "unet" else layer


def kohya_name(layer: Layer, family: Family, layout: Layout = SDXL) -> str:
    """Return a layer's name in kohya's files, which use Stability's names for SDXL's U-Net.

    A layer without a name in Stability's code keeps diffusers' name.
    """
    network, flat = layer
    if network != "unet":
        number = {"text_encoder": "1", "text_encoder_2": "2"}[network] if family == "sdxl" else ""
        return f"lora_te{number}_{flat}"
    if family == "sdxl":
        with suppress(ValueError):
            flat = original_name(flat, layout, "_")
    return f"lora_unet_{flat}"


def summarize_names(names: Sequence[str], max_names: int = 3) -> str:
    """Return the first names and the number of further ones."""
    more = len(names) - max_names
    return ", ".join(names[:max_names]) + (f" and {more} more" if more > 0 else "")
