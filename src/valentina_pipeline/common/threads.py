"""Number of threads, and settings for reproducible results."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the block, so that sums round equally on all machines."""
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

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it to be deterministic
    deterministic: Any = torch.utils.deterministic
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill_before = deterministic.fill_uninitialized_memory
    deterministic.fill_uninitialized_memory = False  # saves 5 % of each step
    torch.set_num_threads(threads)
    # on GPUs some operations have no deterministic kernel: only warn there
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        deterministic.fill_uninitialized_memory = fill_before


class DeterministicKernels:
    """Runs computations with deterministic kernels only, until an operation has none; GPUs lack some.

    torch's attention has a deterministic backward pass, but uses it only without `warn_only`.
    """

    def __init__(self) -> None:
        self._strict = True

    def run(self, compute: Callable[[], Result]) -> Result:
        """Return what `compute` returns; outside `reproducible`, kernels are as they are."""
        import torch

        if not self._strict or not torch.are_deterministic_algorithms_enabled():
            return compute()
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        try:
            torch.use_deterministic_algorithms(True)
            return compute()
        except RuntimeError as err:
            if "does not have a deterministic implementation" not in str(err):
                raise
            logger.warning("a repeated run may round differently: %s", str(err).split(",")[0])
            self._strict = False
        finally:
            torch.use_deterministic_algorithms(True, warn_only=warn_only)
        return compute()


def processor_kind(device: str) -> str:
    """Return the kind of a processor, which determines its rounding: one kind computes the same bits.

    Args:
        device: torch's name, such as "cpu" or "cuda:0".

    Returns:
        Name of a GPU; architecture, vendor, second-level cache and instruction sets of a CPU.
    """
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    capabilities = torch.cpu.get_capabilities()
    sets = sorted(name for name, has in capabilities.items() if has is True)
    vendor = str(capabilities["cpu_name"]).partition(" ")[0]
    cache = f"{capabilities['l2_cache_size']} bytes"
    return " ".join([str(capabilities["architecture"]), vendor, cache, *sets])


def use_threads(count: int) -> None:
    """Set the number of torch's threads, which affects rounding."""
    import torch

    torch.set_num_threads(count)
