"""The learned part of a parameter, in the order of the parameter's memory."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ghn.base.blocks import Block, Grid
from ghn.graph.graph import ParamSpec
from ghn.graph.layout import COLUMN_AXES, Layout


@dataclass(frozen=True)
class MemoryLayout:
    """How the matrix of a parameter (rows are outputs, columns inputs) lies in its memory.

    If columns are the longer steps (GPT-2's maps, transposed convolutions), a memory row belongs to one input and
    holds the entries of all outputs, perhaps in each of several matrices.
    """

    grid: Grid
    transposed: bool
    columns: tuple[int, ...]
    """The layout's column axes in the order of memory."""
    inner: tuple[tuple[int, bool], ...] = ()
    """Size of each axis within a memory row, if transposed, and whether it counts columns."""

    @classmethod
    def of(cls, spec: ParamSpec, layout: Layout) -> "MemoryLayout":
        """Look at the axes of a parameter."""
        axes = layout.permutation[len(layout.permutation) - len(layout.column_sizes) :]
        columns = tuple(sorted(range(len(axes)), key=axes.__getitem__))
        # Axes of size one are nowhere: a convolution of single points is a matrix in order.
        long = [
            (size, kind in COLUMN_AXES) for size, kind in zip(spec.shape, spec.axes, strict=True) if size > 1
        ]
        is_column = [column for _, column in long]
        if is_column == sorted(is_column):
            together = _together(spec, layout)
            return cls(Grid(layout.rows // together, together, layout.columns), False, columns)
        start = is_column.index(True)
        stop = is_column.index(False, start)
        parts = (long[:start], long[start:stop], long[stop:])
        grid = Grid(*(math.prod(size for size, _ in part) for part in parts))
        return cls(grid, True, columns, tuple(long[stop:]))


def _together(spec: ParamSpec, layout: Layout) -> int:
    """Rows that belong to one matrix: those of a group, or of the last axis that counts rows."""
    if spec.groups > 1 and layout.row_sizes[:1] == (spec.groups,):
        return layout.rows // spec.groups
    return next((size for size in reversed(layout.row_sizes) if size > 1), 1)


class LowRankUpdate:
    """A low-rank product of which any bands of rows can be added to a base."""

    def __init__(self, left: Tensor, right: Tensor, layout: Layout, memory_layout: MemoryLayout) -> None:
        rank = right.shape[-1]
        in_memory = right.view(*layout.column_sizes, rank).permute(*memory_layout.columns, -1)
        self._left, self._right = left, in_memory.reshape(-1, rank)
        self._grid, self._transposed = memory_layout.grid, memory_layout.transposed
        self._inner = memory_layout.inner
        self._kernel = math.prod(size for size, is_column in self._inner if is_column)

    def add(self, values: Tensor, block: Block, band: int, first: int) -> Tensor:
        """Add the product to rows of a block, in place unless gradients are recorded.

        Args:
            values: Shape ``(rows, columns)``.
            block: Where they are.
            band: Rows that are computed at once, always the same ones.
            first: First band within the block.
        """
        start = block.start + first * band
        if not self._transposed:
            return _add_bands(values, self._left[start : start + len(values)], self._right, band)
        matrix, row = divmod(start, self._grid.rows)
        outputs = self._left.view(self._grid.stack, -1, self._left.shape[-1])[
            matrix : matrix + block.matrices
        ]
        count = len(values) // block.matrices
        inputs = self._right[row * self._kernel : (row + count) * self._kernel]
        if self._kernel == 1:
            return self._add_matrices(values, inputs, outputs, band)
        zeros = values.new_zeros(len(values) * self._kernel, outputs.shape[1])
        product = self._add_matrices(zeros, inputs, outputs, band * self._kernel)
        rows = self._interleave(product).reshape(values.shape)
        return values + rows if torch.is_grad_enabled() else values.add_(rows)

    def _add_matrices(self, values: Tensor, inputs: Tensor, outputs: Tensor, band: int) -> Tensor:
        """Add ``inputs @ outputs.mT`` of one matrix by bands, of several small ones, which come whole, at once."""
        if len(outputs) == 1:
            return _add_bands(values, inputs, outputs[0], band)
        base, left = values.view(len(outputs), len(inputs), -1), inputs.expand(len(outputs), -1, -1)
        if torch.is_grad_enabled():
            return torch.baddbmm(base, left, outputs.mT).view(values.shape)
        base.baddbmm_(left, outputs.mT)
        return values

    def _interleave(self, made: Tensor) -> Tensor:
        """Bring products of shape ``(rows * kernel, outputs)`` into the order within memory rows."""
        order = sorted(range(len(self._inner)), key=lambda axis: not self._inner[axis][1])
        split = made.view(-1, *(self._inner[axis][0] for axis in order))
        return split.permute(0, *(1 + order.index(axis) for axis in range(len(order))))


def _add_bands(values: Tensor, rows: Tensor, columns: Tensor, band: int) -> Tensor:
    """Add ``rows @ columns.mT``, whole bands in one batch and what is left of one alone."""
    whole = len(values) // band
    parts = []
    for start, stop, height in ((0, whole * band, band), (whole * band, len(values), len(values) % band)):
        if stop == start:
            continue
        count = (stop - start) // height
        base = values[start:stop].view(count, height, -1)
        left, right = rows[start:stop].reshape(count, height, -1), columns.mT.expand(count, -1, -1)
        if torch.is_grad_enabled():
            parts.append(torch.baddbmm(base, left, right).view(stop - start, -1))
        else:
            base.baddbmm_(left, right)
    if not torch.is_grad_enabled():
        return values
    return parts[0] if len(parts) == 1 else torch.cat(parts)
