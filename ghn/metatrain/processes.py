"""One run by several processes: each tries a share of an update's networks, and all learn from all of them."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import distributed as dist
from torch import nn

from ghn.metatrain.cutting import Gradients

Value = TypeVar("Value")


class Processes:
    """The processes of a launch, of which this is one; by itself if there was none.

    Args:
        accelerator: Has set up the group.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.rank, self.count = accelerator.process_index, accelerator.num_processes

    @property
    def first(self) -> bool:
        """Whether this process writes and shows."""
        return self.rank == 0

    def share(self, items: Sequence[Value], work: Sequence[float] | None = None) -> Sequence[Value]:
        """Those of some items that this process has to do.

        Args:
            items: The same in all processes.
            work: How long each takes, in any unit, so that the processes finish together; alike if missing. The longest
                comes first, and each goes to the process with the least to do.
        """
        if work is None:
            return items[self.rank :: self.count]
        loads, own = [0.0] * self.count, []
        for number in sorted(range(len(items)), key=lambda number: (-work[number], number)):
            least = loads.index(min(loads))
            loads[least] += work[number]
            if least == self.rank:
                own.append(number)
        return [items[number] for number in sorted(own)]

    def gather(self, values: list[Any]) -> list[Any]:
        """The values of all processes, in order of their ranks."""
        if self.count == 1:
            return values
        lists: list[Any] = [None] * self.count
        dist.all_gather_object(lists, values)
        return [value for part in lists for value in part]

    def add_gradients(self, tables: Sequence[nn.Parameter], gradients: Gradients) -> None:
        """Sum the gradients over the processes: of the tables that any of them touched, in one message."""
        if self.count == 1:
            return
        flags = torch.tensor([table.grad is not None for table in tables], dtype=torch.uint8)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        touched = [gradients.of(tables[number]) for number in flags.nonzero().flatten().tolist()]
        if not touched:
            return
        flat = torch.cat([gradient.flatten() for gradient in touched])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in touched])
        for gradient, part in zip(touched, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
