"""Networks that have a drawing keep to a picture: ControlNets and T2I-Adapters, several at once."""

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
"""Those that need no weights; pictures of the other kinds come ready, such as a depth map."""

SAME = ("in_channels", "block_out_channels", "cross_attention_dim", "addition_embed_type")
"""What a ControlNet has in common with its U-Net."""


@dataclass(frozen=True)
class Control:
    """What a drawing keeps to.

    Attributes:
        network: ControlNetModel or T2IAdapter.
        picture: RGB, as large as the drawing: edges, a pose, depth...
        scale: how much it counts; 0 changes nothing.
    """

    network: Any
    picture: Image.Image
    scale: float


def load(folder: Path, architecture: Architecture, unet: Any) -> Any:
    """Return a network from a folder in diffusers' layout, frozen, where and as `unet` computes.

    Raises:
        ValueError: it is for another base.
        OSError: the folder holds no such network in safetensors.
    """
    import diffusers

    kind = {"controlnet": diffusers.ControlNetModel, "t2i": diffusers.T2IAdapter}[architecture]
    network = kind.from_pretrained(
        folder, torch_dtype=unet.dtype, use_safetensors=True, local_files_only=True
    )
    mine, base = network.config, unet.config
    if architecture == "controlnet":
        other = [name for name in SAME if _plain(mine[name]) != _plain(base[name])]
    else:
        both = zip(mine["channels"], base["block_out_channels"], strict=False)
        other = ["channels"] if any(one != theirs for one, theirs in both) else []
    if other:
        raise ValueError(f"it is for another base: its {other[0]} is {mine[other[0]]}")
    return attach_like(network.requires_grad_(False).eval(), unet)


@contextmanager
def apply_controls(unet: Any, controls: Sequence[Control]) -> Iterator[None]:
    """Have networks steer a U-Net inside of the block, in whichever pipeline it works.

    Each call of the U-Net is given what diffusers' own pipelines for ControlNets and T2I-Adapters give it.
    """
    import torch
    from diffusers import ControlNetModel, MultiControlNetModel

    if not controls:
        yield
        return
    nets = [each for each in controls if isinstance(each.network, ControlNetModel)]
    shown = [_pixels(each, unet) for each in nets]
    together = MultiControlNetModel([each.network for each in nets])
    with torch.inference_mode():
        features = _features([each for each in controls if each not in nets], unet)

    def hook(_: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        more: dict[str, Any] = {}
        images = len(args[0])  # each twice where guidance needs both sides
        if nets:
            down, middle = together(
                *args,
                given["encoder_hidden_states"],
                [pixels.expand(images, -1, -1, -1) for pixels in shown],
                [each.scale for each in nets],
                added_cond_kwargs=given.get("added_cond_kwargs"),
                return_dict=False,
            )
            more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        if features:
            each = [part.expand(images, -1, -1, -1) for part in features]
            more["down_intrablock_additional_residuals"] = each
        return args, {**given, **more}

    handle = unet.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _features(adapters: Sequence[Control], unet: Any) -> "list[Tensor]":
    """Return what T2I-Adapters add to the U-Net's blocks, of all of them; [] where there is none."""
    each = [[part * a.scale for part in a.network(_pixels(a, unet))] for a in adapters]
    return [sum(parts[1:], parts[0]) for parts in zip(*each, strict=True)]


def _pixels(control: Control, unet: Any) -> "Tensor":
    """Return a control's picture (1, c, h, w) in [0, 1]."""
    import torch

    config = control.network.config
    channels = config.get("conditioning_channels") or config["in_channels"]
    shown = np.array(control.picture.convert("L" if channels == 1 else "RGB"))
    pixels = torch.from_numpy(shown.reshape(*shown.shape[:2], -1)).permute(2, 0, 1)[None] / 255
    return pixels.to(execution_device(unet), unet.dtype)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
