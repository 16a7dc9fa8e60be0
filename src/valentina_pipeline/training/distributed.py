"""Distributed training: processes, on one or more machines, that share the batches of each step."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """This process among the processes that `accelerate launch` started; a single process by default.

    Attributes:
        rank: index of this process; 0 is the main process, which writes files and logs.
        count: number of processes.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def joined(cls) -> "Processes":
        """Join the process group if `accelerate launch` (or torchrun) started several processes."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=not torch.cuda.is_available())
        return cls(state.process_index, state.num_processes)

    @property
    def first(self) -> bool:
        """True on the main process, which writes files and logs."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over the processes."""
        if self.count == 1:
            return
        separate = list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in separate])  # one message, not hundreds
        torch.distributed.all_reduce(flat)
        means = flat.div_(self.count).split([tensor.numel() for tensor in separate])
        for tensor, mean in zip(separate, means, strict=True):
            tensor.copy_(mean.view_as(tensor))

    def broadcast(self, work: Callable[[], Result]) -> Result:
        """Call `work` in the main process and return its result in all processes."""
        if self.count == 1:
            return work()
        results: list[Any] = [work() if self.first else None]
        torch.distributed.broadcast_object_list(results)
        return results[0]

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            torch.distributed.barrier()

    def leave(self) -> None:
        """Wait for all processes, then end all but the main process, which does the remaining work."""
        if self.count > 1:
            self.wait()
            torch.distributed.destroy_process_group()
            if not self.first:
                raise SystemExit(0)

    def agree(self, loss: Tensor, stop_requested: bool) -> tuple[float, bool]:
        """Return the mean loss and True if any process is to stop, so that all stop at the same step."""
        both = torch.stack([loss.detach(), loss.new_tensor(float(stop_requested))])
        self.average([both])
        return both[0].item(), both[1].item() > 0
