"""Place a base model's networks in memory: on the device, or offloaded, by the free memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

Offload = Literal["none", "model", "sequential"]

USABLE_FRACTION = 0.9
"""Usable share of the free memory; the rest is left to other programs."""

NUM_DECODER_MAPS = 8
"""Float32 feature maps in image size that the decoder holds at once: an estimate, not measured."""

TILING_FACTOR = 8
"""Approximate factor by which tiling reduces the decoder's memory."""

MAX_UNTILED_PIXELS = 1536 * 1536
"""Image size in pixels above which the decoder always works in tiles."""


@dataclass(frozen=True)
class Placement:
    """Placement of a pipeline's networks in memory.

    Attributes:
        offload: "none" keeps all networks on the device; "model" one network at a time; "sequential" one
            layer at a time.
        tiled: True decodes in tiles with blended seams. Images are decoded one after the other in any case.
        why: reason, for messages.
    """

    offload: Offload
    tiled: bool
    why: str


def choose_placement(networks: Mapping[str, int], channels: int, side: int, free: int | None) -> Placement:
    """Return the fastest placement of networks that fits the memory.

    Args:
        networks: name -> bytes of its weights.
        channels: channels of the decoder's feature maps in image size.
        side: side in pixels of the images that the base model is made for.
        free: free bytes of the accelerator's memory, None without one.
    """
    large = side * side > MAX_UNTILED_PIXELS
    if free is None:
        return Placement("none", large, "no accelerator: the machine's memory holds all networks")
    usable, total, largest = free * USABLE_FRACTION, sum(networks.values()), max(networks.values())
    decoding = NUM_DECODER_MAPS * channels * side * side * 4
    resident: dict[Offload, float] = {"none": total, "model": largest, "sequential": 0}
    fitting = [offload for offload, size in resident.items() if size + decoding / TILING_FACTOR <= usable]
    offload: Offload = fitting[0] if fitting else "sequential"
    tiled = large or resident[offload] + decoding > usable
    return Placement(offload, tiled, f"{total / 2**30:.1f} GiB of weights, {free / 2**30:.1f} GiB free")


def place(pipe: Any, device: str, side: int, free: int | None) -> Placement:
    """Place a pipeline on a device, as far as it fits, and return the placement.

    Args:
        pipe: pipeline of diffusers, on the CPU.
        device: device, such as "cuda".
        side: side in pixels of the images that the base model is made for.
        free: free bytes of the device's memory, None for a CPU.
    """
    sizes = {name: sum(p.nbytes for p in part.parameters()) for name, part in _networks(pipe).items()}
    placement = choose_placement(sizes, pipe.vae.config.block_out_channels[0], side, free)
    apply(pipe, placement, device)
    return placement


def apply(pipe: Any, placement: Placement, device: str) -> None:
    """Apply a placement to a pipeline."""
    import torch

    if placement.tiled:
        pipe.vae.enable_tiling()
    match placement.offload:
        case "none":
            pipe.to(device)
        case "model":
            pipe.enable_model_cpu_offload(device=device)
        case "sequential":
            for network in _networks(pipe).values():
                _layer_by_layer(network, torch.device(device))


@contextmanager
def fully_loaded(pipe: Any, placement: Placement | None) -> Iterator[None]:
    """Load all weights into their networks inside the block, so that they can be changed.

    Afterwards the placement is applied again, to new layers as well.
    """
    if placement is None or placement.offload == "none":
        yield
        return
    device = str(execution_device(pipe.unet))
    pipe.remove_all_hooks()
    try:
        yield
    finally:
        apply(pipe, placement, device)


def attach_like(network: Any, other: Any) -> Any:
    """Place a network on the device of another one, layer by layer if the other is offloaded so."""
    if any(weights.is_meta for weights in other.parameters()):
        return _layer_by_layer(network, execution_device(other))
    return network.to(execution_device(other))


def execution_device(network: Any) -> Any:
    """Return the device that a network computes on, even while its weights are offloaded."""
    hooks = (getattr(module, "_hf_hook", None) for module in (network, *network.children()))
    devices = (device for hook in hooks if (device := getattr(hook, "execution_device", None)) is not None)
    weights = next(network.parameters(), None)
    return next(devices, None) or (network if weights is None else weights).device


def _layer_by_layer(network: Any, device: Any) -> Any:
    """Offload a network so that each layer's weights are loaded only while it computes.

    Unlike diffusers' method, this loads a layer and its LoRA as one. A DoRA reads the weights of the layer
    that it wraps, and a LoKr's weights are outside any layer.
    """
    from accelerate import cpu_offload
    from peft.tuners.tuners_utils import BaseTunerLayer

    tuned = {type(layer).__name__ for layer in network.modules() if isinstance(layer, BaseTunerLayer)}
    return cpu_offload(network, device, preload_module_classes=sorted(tuned))


def _networks(pipe: Any) -> dict[str, Any]:
    import torch

    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
