"""Number of threads, and settings for reproducible results."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the block: sums rounded in one order everywhere."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Run torch on `threads` threads and only with deterministic kernels inside the block."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for to be deterministic
    filling: Any = torch.utils.deterministic
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    filled, filling.fill_uninitialized_memory = filling.fill_uninitialized_memory, False  # 5 % of each step
    torch.set_num_threads(threads)
    # on GPUs some backward passes have no deterministic kernel: a warning there, not an error
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        filling.fill_uninitialized_memory = filled


def processor_kind(device: str) -> str:
    """Return what a processor's rounding depends on: two of one kind compute the same bits.

    Args:
        device: torch's name, such as "cpu" or "cuda:0".

    Returns:
        Of a GPU its name; of a CPU its architecture, vendor, second-level cache and instruction sets.
    """
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    found = torch.cpu.get_capabilities()
    sets = sorted(name for name, has in found.items() if has is True)
    vendor = str(found["cpu_name"]).partition(" ")[0]
    return " ".join([str(found["architecture"]), vendor, f"{found['l2_cache_size']} bytes", *sets])


def use_threads(count: int) -> None:
    """Let torch compute on so many threads: another number rounds differently."""
    import torch

    torch.set_num_threads(count)
