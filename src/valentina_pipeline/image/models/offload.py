"""Where a base's networks are while it draws, chosen by the memory that is free."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

Offload = Literal["none", "model", "sequential"]

SPARE = 0.9
"""Share of the free memory that is counted on: other programs breathe too."""

MAPS_AT_ONCE = 8
"""Feature maps as large as the picture that the decoder holds, in float32: an estimate, not measured."""

TILES = 8
"""What tiles divide that by, about."""

TILED_FROM = 1536 * 1536
"""Pixels from which the decoder works in tiles wherever it runs."""


@dataclass(frozen=True)
class Placement:
    """How a pipeline uses memory.

    Attributes:
        offload: "none": all networks stay on the device; "model": one at a time is there; "sequential": one
            layer at a time.
        tiled: the decoder works in tiles, whose seams are blended. Images are decoded one after the other
            in any case.
        why: in words.
    """

    offload: Offload
    tiled: bool
    why: str


def choose_placement(networks: Mapping[str, int], channels: int, side: int, free: int | None) -> Placement:
    """Return how to place networks.

    Args:
        networks: name -> bytes of its weights.
        channels: of the decoder's widest feature maps, those as large as the picture.
        side: pixels, of the pictures that the base is made for.
        free: bytes of the accelerator's memory, None without one.
    """
    large = side * side > TILED_FROM
    if free is None:
        return Placement("none", large, "no accelerator: the machine's memory holds all networks")
    room, whole, largest = free * SPARE, sum(networks.values()), max(networks.values())
    decoding = MAPS_AT_ONCE * channels * side * side * 4
    resident: dict[Offload, float] = {"none": whole, "model": largest, "sequential": 0}
    fitting = [offload for offload, held in resident.items() if held + decoding / TILES <= room]
    offload: Offload = fitting[0] if fitting else "sequential"
    tiled = large or resident[offload] + decoding > room
    return Placement(offload, tiled, f"{whole / 2**30:.1f} GiB of weights, {free / 2**30:.1f} GiB free")


def place(pipe: Any, device: str, side: int, free: int | None) -> Placement:
    """Bring a pipeline to a device, as far as it fits, and return how.

    Args:
        pipe: of diffusers, on the CPU.
        device: such as "cuda".
        side: pixels, of the pictures that the base is made for.
        free: bytes of the device's memory, None for a CPU.
    """
    sizes = {name: sum(p.nbytes for p in part.parameters()) for name, part in _networks(pipe).items()}
    placement = choose_placement(sizes, pipe.vae.config.block_out_channels[0], side, free)
    apply(pipe, placement, device)
    return placement


def apply(pipe: Any, placement: Placement, device: str) -> None:
    """Do what a placement says."""
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
    """Have all weights in their networks inside of the block, for what is to be changed in them.

    They go back to where they were: a layer that came meanwhile is brought to the device as the others are.
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
    """Return a network that was brought to where another computes, layer by layer if that is."""
    if any(weights.is_meta for weights in other.parameters()):
        return _layer_by_layer(network, execution_device(other))
    return network.to(execution_device(other))


def execution_device(network: Any) -> Any:
    """Return the device that a network computes on, be its weights elsewhere meanwhile."""
    hooks = (getattr(module, "_hf_hook", None) for module in (network, *network.children()))
    elsewhere = (device for hook in hooks if (device := getattr(hook, "execution_device", None)) is not None)
    weights = next(network.parameters(), None)
    return next(elsewhere, None) or (network if weights is None else weights).device


def _layer_by_layer(network: Any, device: Any) -> Any:
    """Return a network whose layers' weights come when these compute.

    As a pipeline's own method does, but for layers with a LoRA, which come as one: a DoRA looks at the
    weights of the layer below it, and a LoKr has its own outside of any layer.
    """
    from accelerate import cpu_offload
    from peft.tuners.tuners_utils import BaseTunerLayer

    tuned = {type(layer).__name__ for layer in network.modules() if isinstance(layer, BaseTunerLayer)}
    return cpu_offload(network, device, preload_module_classes=sorted(tuned))


def _networks(pipe: Any) -> dict[str, Any]:
    import torch

    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
