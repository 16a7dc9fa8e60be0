"""Handle full memory in training: gradient checkpointing, smaller micro-batches, an error with advice."""

import logging
from collections.abc import Callable

import torch
from torch import nn

logger = logging.getLogger(__name__)

ADVICE = (
    (
        "train_lora.gradient_checkpointing: true",
        "activations are recomputed instead of stored: up to 1.8 times the time",
    ),
    (
        "train_lora.precision: bf16, quantize: nf4",
        "the base model takes an eighth of its float32 memory",
    ),
    ("align.resolution: 25 % lower", "activations shrink with its square"),
)


class OutOfMemoryError(MemoryError):
    """The memory does not hold a step on one image; the message lists memory use and settings that help."""


def find_executable_batch_size(
    part: Callable[[int], None],
    micro: int,
    networks: dict[str, nn.Module],
    enable_checkpointing: Callable[[], bool] = lambda: False,
) -> int:
    """Call `part`, halving the micro-batch while the memory is full; return the micro-batch size that fits.

    Args:
        part: computes all gradients of a step's batch anew, in micro-batches of the given size.
        micro: first micro-batch size to try, in images.
        networks: networks by name; the error message lists their sizes.
        enable_checkpointing: turns on gradient checkpointing; returns False where it stays as it is.

    Raises:
        OutOfMemoryError: the memory does not hold one image at a time.
    """
    while True:
        try:
            part(micro)
            return micro
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as err:
            if not _is_full(err):
                raise
            if enable_checkpointing():
                logger.warning("out of memory: gradient checkpointing is on, each step takes longer")
            elif micro == 1:
                raise OutOfMemoryError(_message(networks)) from err
            else:
                micro = (micro + 1) // 2
                logger.warning(
                    "out of memory: reduced the micro-batch to %d images; the batch size is unchanged", micro
                )
        torch.cuda.empty_cache()


def _is_full(err: Exception) -> bool:
    # torch raises a plain RuntimeError on CPUs
    return isinstance(err, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(err)


def _message(networks: dict[str, nn.Module]) -> str:
    sizes = {
        name: sum(p.numel() * p.element_size() for p in network.parameters())
        for name, network in networks.items()
    }
    usage = ", ".join(f"{name} {size / 2**30:.1f} GiB" for name, size in sizes.items())
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**30
        rest = peak - sum(sizes.values()) / 2**30
        usage += f"; activations, gradients and optimizer state {rest:.1f} GiB of {peak:.1f} GiB at the peak"
    advice = "; ".join(f"{setting} ({effect})" for setting, effect in ADVICE)
    return f"the memory does not hold a step on one image: {usage}. Settings that help most: {advice}"
