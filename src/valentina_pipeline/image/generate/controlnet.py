"""ControlNets and T2I-Adapters: apply one or more control images to a U-Net."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from valentina_pipeline.image.generate.canny import edges
from valentina_pipeline.image.models.offload import attach_like, execution_device

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["canny", "pose", "depth", "segmentation", "normal"]

Architecture = Literal["controlnet", "t2i"]

PREPROCESSORS: Mapping[str, Callable[[Image.Image], Image.Image]] = {"canny": edges}
"""Preprocessors without weights; other kinds need a ready control image, such as a depth map."""

SHARED_SETTINGS = ("in_channels", "block_out_channels", "cross_attention_dim", "addition_embed_type")
"""Configuration values that a ControlNet shares with its U-Net."""


@dataclass(frozen=True)
class Control:
    """Control image with its network and scale.

    Attributes:
        network: ControlNetModel or T2IAdapter.
        picture: control image, RGB, in the size of the generated image: edges, a pose, depth...
        scale: conditioning scale; 0 has no effect.
    """

    network: Any
    picture: Image.Image
    scale: float


def load(folder: Path, architecture: Architecture, unet: Any) -> Any:
    """Load a control network from a folder in diffusers' layout, frozen, with device and dtype of `unet`.

    Raises:
        ValueError: the network is for another base model.
        OSError: the folder does not contain such a network in safetensors.
    """
    import diffusers

    kind = {"controlnet": diffusers.ControlNetModel, "t2i": diffusers.T2IAdapter}[architecture]
    network = kind.from_pretrained(
        folder, torch_dtype=unet.dtype, use_safetensors=True, local_files_only=True
    )
    own, base = network.config, unet.config
    if architecture == "controlnet":
        other = [name for name in SHARED_SETTINGS if _plain(own[name]) != _plain(base[name])]
    else:
        pairs = zip(own["channels"], base["block_out_channels"], strict=False)
        other = ["channels"] if any(channels != expected for channels, expected in pairs) else []
    if other:
        raise ValueError(f"it is for another base model: its {other[0]} is {own[other[0]]}")
    return attach_like(network.requires_grad_(False).eval(), unet)


@contextmanager
def apply_controls(unet: Any, controls: Sequence[Control]) -> Iterator[None]:
    """Apply control networks to a U-Net inside the block, in any pipeline.

    Each call of the U-Net gets the same arguments as in diffusers' ControlNet and T2I-Adapter pipelines.
    """
    import torch
    from diffusers import ControlNetModel, MultiControlNetModel

    if not controls:
        yield
        return
    controlnets = [control for control in controls if isinstance(control.network, ControlNetModel)]
    control_images = [_pixels(control, unet) for control in controlnets]
    combined = MultiControlNetModel([control.network for control in controlnets])
    with torch.inference_mode():
        features = _features([control for control in controls if control not in controlnets], unet)

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        residuals: dict[str, Any] = {}
        batch_size = len(args[0])  # twice the images with classifier-free guidance
        if controlnets:
            down, middle = combined(
                *args,
                kwargs["encoder_hidden_states"],
                [pixels.expand(batch_size, -1, -1, -1) for pixels in control_images],
                [control.scale for control in controlnets],
                added_cond_kwargs=kwargs.get("added_cond_kwargs"),
                return_dict=False,
            )
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        if features:
            expanded = [feature.expand(batch_size, -1, -1, -1) for feature in features]
            residuals["down_intrablock_additional_residuals"] = expanded
        return args, {**kwargs, **residuals}

    handle = unet.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _features(adapters: Sequence[Control], unet: Any) -> "list[Tensor]":
    """Return the sum of the T2I-Adapters' features for the U-Net's blocks; [] without adapters."""
    features = [[feature * a.scale for feature in a.network(_pixels(a, unet))] for a in adapters]
    return [sum(block[1:], block[0]) for block in zip(*features, strict=True)]


def _pixels(control: Control, unet: Any) -> "Tensor":
    """Return the control image as (1, c, h, w) in [0, 1]."""
    import torch

    config = control.network.config
    channels = config.get("conditioning_channels") or config["in_channels"]
    array = np.array(control.picture.convert("L" if channels == 1 else "RGB"))
    pixels = torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)[None] / 255
    return pixels.to(execution_device(unet), unet.dtype)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
