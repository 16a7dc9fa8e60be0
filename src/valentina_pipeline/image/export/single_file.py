"""Write a single-file base model, the format of stable-diffusion.cpp, ComfyUI and the WebUIs.

diffusers' names become the names of Stability's code: `model.diffusion_model.*` is the U-Net,
`first_stage_model.*` the VAE, and the text encoders are `conditioner.embedders.*` for SDXL or
`cond_stage_model.*` for SD 1.5.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.image.lora.unet_names import layout_of, original_name

if TYPE_CHECKING:
    from torch import Tensor

VAE = {
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "mid_block.attentions.0": "mid.attn_1",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def write(pipe: Any, file: Path) -> None:
    """Write a pipeline's networks into one file; equal networks give equal bytes.

    Args:
        pipe: StableDiffusionXLPipeline or StableDiffusionPipeline; its weights keep their dtype.
        file: path of the .safetensors file.
    """
    import torch
    from safetensors.torch import save_file

    xl = hasattr(pipe, "text_encoder_2")
    tensors = {f"model.diffusion_model.{k}": v for k, v in _unet(pipe.unet).items()}
    tensors |= {f"first_stage_model.{k}": v for k, v in _vae(pipe.vae).items()}
    first = "conditioner.embedders.0.transformer." if xl else "cond_stage_model.transformer."
    tensors |= {first + _add_prefix(k): v for k, v in pipe.text_encoder.state_dict().items()}
    if xl:
        tensors |= {
            f"conditioner.embedders.1.model.{k}": v for k, v in _open_clip(pipe.text_encoder_2).items()
        }
        config = pipe.scheduler.config
        flags = {
            "v_pred": config.prediction_type == "v_prediction",
            "ztsnr": config.get("rescale_betas_zero_snr"),
        }
        tensors |= {name: torch.zeros(0) for name, is_set in flags.items() if is_set}  # readers test presence
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, file)


def _add_prefix(name: str) -> str:
    return name if name.startswith("text_model.") else f"text_model.{name}"


def _unet(unet: Any) -> "dict[str, Tensor]":
    layout = layout_of(unet.config)
    renamed = {}
    for name, tensor in unet.state_dict().items():
        layer, leaf = name.rsplit(".", 1)
        renamed[f"{original_name(layer, layout)}.{leaf}"] = tensor
    return renamed


def _vae(vae: Any) -> "dict[str, Tensor]":
    last = len(vae.config.block_out_channels) - 1
    renamed = {}
    for name, tensor in vae.state_dict().items():
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(
            r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", new
        )
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", new)
        attention = "attentions" in new
        for ours, theirs in VAE.items():
            new = re.sub(rf"(?<=\.){re.escape(ours)}(?=\.)", theirs, new)
        # attention layers in Stability's code are 1 x 1 convolutions
        renamed[new] = tensor[..., None, None] if attention and tensor.ndim == 2 else tensor
    return renamed


def _open_clip(encoder: Any) -> "dict[str, Tensor]":
    import torch

    state = {_add_prefix(k) if "projection" not in k else k: v for k, v in encoder.state_dict().items()}
    outer = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
    }
    renamed = {theirs: state[ours] for ours, theirs in outer.items()}
    renamed["text_projection"] = state["text_projection.weight"].T
    for name, tensor in state.items():
        found = re.match(r"text_model\.encoder\.layers\.(\d+)\.(.*)\.(weight|bias)", name)
        if not found or re.search(r"self_attn\.[qkv]_proj", name):
            continue
        renamed[f"transformer.resblocks.{found[1]}.{OPEN_CLIP[found[2]]}.{found[3]}"] = tensor
    for layer in range(encoder.config.num_hidden_layers):
        for leaf in ("weight", "bias"):
            parts = [state[f"text_model.encoder.layers.{layer}.self_attn.{p}_proj.{leaf}"] for p in "qkv"]
            renamed[f"transformer.resblocks.{layer}.attn.in_proj_{leaf}"] = torch.cat(parts)
    return renamed
