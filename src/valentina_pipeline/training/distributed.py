"""Several processes, on one machine or more, that share the batches of each step."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Found = TypeVar("Found")


@dataclass(frozen=True)
class Processes:
    """This process among those that `accelerate launch` started; alone by default.

    Attributes:
        rank: 0 is the one that writes files and tells the tracker.
        count: of them.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def joined(cls) -> "Processes":
        """Join the others, where `accelerate launch` (or torchrun) started several."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=not torch.cuda.is_available())
        return cls(state.process_index, state.num_processes)

    @property
    def first(self) -> bool:
        """Whether this one writes and tells."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over the processes."""
        if self.count == 1:
            return
        apart = list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in apart])  # one message, not hundreds
        torch.distributed.all_reduce(flat)
        for tensor, mean in zip(apart, flat.div_(self.count).split([t.numel() for t in apart]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def broadcast(self, work: Callable[[], Found]) -> Found:
        """Return what `work` gives in the first process, in all of them."""
        if self.count == 1:
            return work()
        found: list[Any] = [work() if self.first else None]
        torch.distributed.broadcast_object_list(found)
        return found[0]

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            torch.distributed.barrier()

    def leave(self) -> None:
        """Wait for all, then end every process but the first, which has the rest to do."""
        if self.count > 1:
            self.wait()
            torch.distributed.destroy_process_group()
            if not self.first:
                raise SystemExit(0)

    def agree(self, loss: Tensor, asked: bool) -> tuple[float, bool]:
        """Return the mean loss, and whether any process was asked to stop: all stop at the same step."""
        both = torch.stack([loss.detach(), loss.new_tensor(float(asked))])
        self.average([both])
        return both[0].item(), both[1].item() > 0
