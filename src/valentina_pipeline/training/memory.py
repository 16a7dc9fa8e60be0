"""What to do, and to say, when the memory does not hold a step."""

import logging
from collections.abc import Callable

import torch
from torch import nn

logger = logging.getLogger(__name__)

ADVICE = (
    (
        "train_lora.gradient_checkpointing: true",
        "activations are computed twice instead of kept: a third more time",
    ),
    ("train_lora.precision: bf16, quantise: nf4", "the frozen base takes an eighth of its float32 memory"),
    ("align.resolution: a quarter less", "activations shrink with the square"),
)


class OutOfMemoryError(MemoryError):
    """Not even one picture at a time fits; the message says what took the memory and what would help."""


def find_executable_batch_size(
    part: Callable[[int], None], micro: int, networks: dict[str, nn.Module]
) -> int:
    """Call `part` with so many pictures at a time as fit the memory; return how many those were.

    Args:
        part: computes the gradients of a step's batch from nothing, in pieces of the size it is given.
        micro: to begin with.
        networks: whose sizes the message tells.

    Raises:
        OutOfMemoryError: one at a time is too much.
    """
    while True:
        try:
            part(micro)
            return micro
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as err:
            if not _is_full(err):
                raise
            if micro == 1:
                raise OutOfMemoryError(_message(networks)) from err
            micro = (micro + 1) // 2
            logger.warning(
                "out of memory: going on with %d pictures at a time, as many a step as before", micro
            )
        torch.cuda.empty_cache()


def _is_full(err: Exception) -> bool:
    # on CPUs torch raises a plain RuntimeError
    return isinstance(err, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(err)


def _message(networks: dict[str, nn.Module]) -> str:
    sizes = {
        name: sum(p.numel() * p.element_size() for p in network.parameters())
        for name, network in networks.items()
    }
    held = ", ".join(f"{name} {size / 2**30:.1f} GiB" for name, size in sizes.items())
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**30
        rest = peak - sum(sizes.values()) / 2**30
        held += (
            f"; activations, gradients and the optimiser's state {rest:.1f} GiB of {peak:.1f} GiB at the peak"
        )
    helps = "; ".join(f"{setting} ({why})" for setting, why in ADVICE)
    return f"the memory does not hold a step on one picture: {held}. What helps most: {helps}"
