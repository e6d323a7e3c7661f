"""The learned part of a parameter, in the order of the parameter's memory."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ghn.decoder.chunks import Block, Grid
from ghn.decoder.layout import COLUMN_AXES, Layout
from ghn.graph.graph import ParamSpec


@dataclass(frozen=True)
class Arrangement:
    """How the matrix of a parameter (rows are outputs, columns inputs) lies in its memory."""

    grid: Grid
    form: str
    """'rows': row by row; 'transposed': column by column (GPT-2's maps), perhaps in each of several matrices; 'other':
    anything else (transposed convolutions)."""
    smooth: bool
    """Whether memory rows end in the spatial axes of a kernel larger than a point."""

    @classmethod
    def of(cls, spec: ParamSpec, layout: Layout) -> "Arrangement":
        """Look at the axes of a parameter."""
        kernel = spec.shape[len(spec.shape) - layout.spatial :]
        smooth = max(kernel, default=1) > 1 and spec.axes[-layout.spatial :] == ("spatial",) * layout.spatial
        # Axes of size one are nowhere: a convolution of single points is a matrix in order.
        long = [axis for axis, size in enumerate(spec.shape) if size > 1]
        is_column = [spec.axes[axis] in COLUMN_AXES for axis in long]
        permutation = [axis for axis in layout.permutation if spec.shape[axis] > 1]
        if is_column == sorted(is_column):
            grid = Grid(layout.rows // _together(spec, layout), _together(spec, layout), layout.columns)
            return cls(grid, "rows" if permutation == long else "other", smooth)
        start = is_column.index(True)
        stop = is_column.index(False, start)
        parts = (long[:start], long[start:stop], long[stop:])
        grid = Grid(*(math.prod(spec.shape[axis] for axis in part) for part in parts))
        columns = [axis for axis in permutation if spec.axes[axis] in COLUMN_AXES]
        swapped = columns == long[start:stop] and spec.groups == 1
        return cls(grid, "transposed" if swapped else "other", smooth)


def _together(spec: ParamSpec, layout: Layout) -> int:
    """Rows that belong to one matrix: those of a group, or of the last axis that counts rows."""
    if spec.groups > 1 and layout.row_sizes[:1] == (spec.groups,):
        return layout.rows // spec.groups
    return next((size for size in reversed(layout.row_sizes) if size > 1), 1)


class Product:
    """A low-rank product of which any bands of rows can be added to a base."""

    def __init__(self, left: Tensor, right: Tensor, layout: Layout, arrangement: Arrangement) -> None:
        self._left, self._right, self._layout = left, right, layout
        self._form, self._grid = arrangement.form, arrangement.grid
        self._whole: Tensor | None = None

    def add(self, values: Tensor, block: Block, band: int, first: int) -> Tensor:
        """Add the product to rows of a block, in place unless gradients are recorded.

        Args:
            values: Shape ``(rows, columns)``.
            block: Where they are.
            band: Rows that are computed at once, always the same ones.
            first: First band within the block.
        """
        start = block.start + first * band
        if self._form == "rows":
            return _add_bands(values, self._left[start : start + len(values)], self._right, band)
        if self._form == "transposed" and block.matrices == 1:
            matrix, row = divmod(start, self._grid.rows)
            columns = self._left.view(self._grid.stack, self._grid.columns, -1)[matrix]
            return _add_bands(values, self._right[row : row + len(values)], columns, band)
        if self._whole is None:
            self._whole = self._all()
        rows = self._whole[start : start + len(values)]
        return values + rows if torch.is_grad_enabled() else values.add_(rows)

    def _all(self) -> Tensor:
        return self._layout.restore(self._left @ self._right.mT).reshape(self._grid.height, -1)


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
