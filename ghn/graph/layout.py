"""How a parameter tensor of any rank is seen as a matrix: rows that are produced, columns that are read."""

import math
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from ghn.graph.graph import ParamSpec

COLUMN_AXES = frozenset({"in", "spatial", "channel"})
"""Axes that a row of the matrix extends over; all others number the rows."""


@dataclass(frozen=True)
class Layout:
    """A permutation of the axes to (rows..., columns...), and the sizes on each side."""

    permutation: tuple[int, ...]
    row_sizes: tuple[int, ...]
    column_sizes: tuple[int, ...]
    spatial: int
    """How many of the last ``column_sizes`` are spatial."""
    permuted_shape: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Rows of the matrix."""
        return math.prod(self.row_sizes)

    @property
    def columns(self) -> int:
        """Columns of the matrix."""
        return math.prod(self.column_sizes)

    @classmethod
    def of(cls, spec: ParamSpec) -> "Layout":
        """Lay out a parameter by the roles of its axes; grouped and gated rows are split by group."""
        return _layout(spec.shape, spec.axes, spec.groups)

    def restore(self, matrix: Tensor) -> Tensor:
        """Turn a ``(rows, columns)`` matrix back into the parameter's own shape."""
        inverse = sorted(range(len(self.permutation)), key=self.permutation.__getitem__)
        return matrix.reshape(self.permuted_shape).permute(inverse)


@lru_cache(maxsize=2**12)
def _layout(shape: tuple[int, ...], axes: tuple[str, ...], groups: int) -> Layout:
    columns = [axis for axis in range(len(shape)) if axes[axis] in COLUMN_AXES]
    columns.sort(key=lambda axis: axes[axis] == "spatial")
    rows = [axis for axis in range(len(shape)) if axis not in columns]
    row_sizes = tuple(shape[axis] for axis in rows)
    if groups > 1 and row_sizes and row_sizes[0] % groups == 0:
        row_sizes = (groups, row_sizes[0] // groups, *row_sizes[1:])
    return Layout(
        permutation=(*rows, *columns),
        row_sizes=row_sizes,
        column_sizes=tuple(shape[axis] for axis in columns),
        spatial=sum(axes[axis] == "spatial" for axis in columns),
        permuted_shape=tuple(shape[axis] for axis in (*rows, *columns)),
    )
