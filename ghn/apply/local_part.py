"""Where decoded rows go: into a tensor, or into one process's shard of it."""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ghn.base.blocks import Grid
from ghn.decoder import ParamSlice
from ghn.errors import PredictionError
from ghn.tensors import is_distributed


class Scratch:
    """Memory that slices are made in which can't be made in place; it grows to the largest of them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._memory = torch.empty(0, device=device)

    def take(self, numel: int) -> Tensor:
        """A float32 vector, shape ``(numel,)``, valid until the next call."""
        if len(self._memory) < numel:
            self._memory = torch.empty(0, device=self.device)  # or old and new memory would be there at once
            self._memory = torch.empty(numel, device=self.device)
        return self._memory[:numel]


@dataclass(frozen=True)
class LocalPart:
    """The part of a parameter that this process holds."""

    name: str
    local: Tensor
    """Values of the part."""
    shape: tuple[int, ...]
    """Shape of the whole parameter."""
    offset: tuple[int, ...]
    """Where the part begins, along each axis."""

    @classmethod
    def of(cls, name: str, parameter: Tensor) -> "LocalPart":
        """Find this process's part.

        Raises:
            PredictionError: If a distributed tensor is cut in a way that is no block of it.
        """
        shape = tuple(parameter.shape)
        if not is_distributed(parameter):
            return cls(name, parameter.detach(), shape, (0,) * len(shape))
        return cls._of_shard(name, cast(Any, parameter))

    @classmethod
    def _of_shard(cls, name: str, parameter: Any) -> "LocalPart":
        from torch.distributed.tensor import Replicate, Shard
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        shape = tuple(parameter.shape)
        for placement in parameter.placements:
            if type(placement) not in (Shard, Replicate):
                raise PredictionError(
                    f"{name!r} is distributed as {placement}; only Shard and Replicate are known: initialize the model "
                    "before it is cut further"
                )
        size, offset = compute_local_shape_and_global_offset(
            shape, parameter.device_mesh, parameter.placements
        )
        local = parameter.to_local().detach()
        assert tuple(local.shape) == tuple(size)
        return cls(name, local, shape, tuple(offset))

    def rows(self, grid: Grid) -> tuple[int, int]:
        """Rows of the grid that this process's part touches."""
        start, stop = self._flat()
        return start // grid.columns, -(-stop // grid.columns)

    def write(self, slices: list[ParamSlice], scratch: Scratch) -> None:
        """Make some consecutive slices and write what belongs here.

        Args:
            slices: One slice, or, if ``whole`` says so, all slices of the parameter.
            scratch: Where to make what can't be made in place.
        """
        if not self.local.numel():
            return
        if not self.whole:
            for entry in slices:
                self._write_rows(entry, scratch)
            return
        first = slices[0]
        block = scratch.take(sum(entry.rows for entry in slices) * first.columns).view(-1, first.columns)
        for entry in slices:
            entry.make(block[entry.start - first.start :][: entry.rows])
        start, stop = self._flat()
        unit = math.prod(self.shape[1:])
        rows = block.reshape(-1)[start - first.start * first.columns :][: stop - start].view(
            -1, *self.shape[1:]
        )
        assert rows.numel() == self.local.shape[0] * unit
        for axis in range(1, len(self.shape)):
            rows = rows.narrow(axis, self.offset[axis], self.local.shape[axis])
        self.local.copy_(rows)

    @property
    def whole(self) -> bool:
        """Whether all slices are needed at once: the part is cut along an inner axis, or its memory is not in order."""
        return not self.local.is_contiguous() or tuple(self.local.shape[1:]) != self.shape[1:]

    def _flat(self) -> tuple[int, int]:
        """Elements of the whole tensor, in memory order, from the part's first row to its last."""
        unit = math.prod(self.shape[1:])
        start = self.offset[0] * unit if self.shape else 0
        return start, start + (self.local.shape[0] * unit if self.shape else 1)

    def _write_rows(self, entry: ParamSlice, scratch: Scratch) -> None:
        begin, end = self._flat()
        start, stop = entry.start * entry.columns, (entry.start + entry.rows) * entry.columns
        first, last = max(start, begin), min(stop, end)
        if first >= last:
            return
        target = self.local.view(-1)[first - begin : last - begin]
        direct = target.dtype == torch.float32 and target.device == scratch.device
        if direct and last - first == stop - start:
            entry.make(target.view(entry.rows, entry.columns))
        else:
            block = scratch.take(stop - start)
            entry.make(block.view(entry.rows, entry.columns))
            target.copy_(block[first - start : last - start])
