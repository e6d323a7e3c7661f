"""The random part of a predicted matrix: what an untrained hypernetwork writes."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ghn.base.blocks import (
    BATCH_ELEMENTS,
    BLOCK_ELEMENTS,
    BLOCK_ROWS,
    Block,
    Grid,
    blocks,
    keyed_generator,
)
from ghn.base.orthogonal import orthogonalize, tile_width, tiled_factors

BASES = ("orthogonal", "normal", "none")

SMALL_ELEMENTS = 2**14
"""Matrices up to this size are orthogonalized directly; larger ones are products of small ones."""

SLOW_ROWS = 64
"""Rows of a block whose number of columns can't be tiled: orthogonalizing them takes fifty times as long."""


@dataclass(frozen=True)
class RandomBlock:
    """The random numbers of one block, of which any bands can be made alone.

    A band is the unit of arithmetic: matrix products have the same sizes whatever is asked for, so the bits of a row
    don't depend on which others are made with it.
    """

    block: Block
    band: int
    """Rows of a band; only the last one may have fewer."""
    left: Tensor
    """Left factor, shape ``(band * columns / width, width)``; the rows themselves if there is no ``right``."""
    right: Tensor | None = None
    """Right factors of the bands, shape ``(bands, width, width)``."""

    @property
    def nbytes(self) -> int:
        """Memory that the numbers take."""
        return self.left.nbytes + (0 if self.right is None else self.right.nbytes)

    @property
    def bands(self) -> int:
        """Number of bands; one if the rows themselves were drawn."""
        return -(-self.block.height // self.band)

    def to(self, device: torch.device) -> "RandomBlock":
        """The same numbers on a device."""
        if self.left.device == device:
            return self
        right = None if self.right is None else self.right.to(device)
        return replace(self, left=self.left.to(device), right=right)

    def make(self, first: int, last: int, scale: Tensor, out: Tensor | None = None) -> Tensor:
        """Make bands ``first`` to ``last`` (exclusive), times ``scale``.

        Args:
            first: First band.
            last: One past the last band.
            scale: Scalar; may carry a gradient if ``out`` is None.
            out: Contiguous rows to write into.

        Returns:
            Shape ``(rows, columns)``, without rows past the end of the block.
        """
        if self.right is None:
            return self.left * scale if out is None else torch.mul(self.left, scale, out=out)
        rows = min(last * self.band, self.block.height) - first * self.band
        right = self.right[first:last] * scale
        left = self.left.expand(len(right), -1, -1)
        if out is not None and rows == len(right) * self.band:
            torch.bmm(left, right, out=out.view(*left.shape[:2], -1))
            return out
        values = torch.bmm(left, right).view(-1, self.block.columns)[:rows]
        return values if out is None else out.copy_(values)


def base_blocks(kind: str, grid: Grid) -> list[Block]:
    """The blocks that the base of a parameter is drawn in; they depend on the parameter's shape alone."""
    if _is_plain(kind, grid):
        return list(blocks(grid, BATCH_ELEMENTS, grid.rows))
    fast = grid.columns <= SLOW_ROWS or tile_width(grid.columns) is not None
    return list(blocks(grid, BLOCK_ELEMENTS, max(BLOCK_ROWS, grid.columns) if fast else SLOW_ROWS))


def _is_plain(kind: str, grid: Grid) -> bool:
    return kind != "orthogonal" or min(grid.rows, grid.columns) == 1


def sample_block(kind: str, seed: int, name: str, grid: Grid, block: Block) -> RandomBlock:
    """Draw one block of the base of a parameter, of unit root mean square, keyed by seed, name and block.

    Numbers are drawn on the CPU, so that they are the same for all devices.

    Args:
        kind: 'orthogonal' (rows, or columns where those are fewer), 'normal' or 'uniform' (independent entries),
            'sinusoids' (along each column, see ``sinusoids``) or 'none' (zeros).
        seed: Seed of the whole prediction.
        name: Name of the parameter.
        grid: The parameter as matrices.
        block: One of its ``base_blocks``.
    """
    generator = keyed_generator(torch.device("cpu"), seed, name, block.start)
    matrices, rows, columns = block.matrices, block.rows, block.columns
    fewer, more = sorted((rows, columns))
    if kind == "none":
        numbers = torch.zeros(matrices, rows, columns)
    elif kind == "sinusoids" and columns > 1:
        positions = torch.arange(block.start, block.start + block.height) % grid.rows
        numbers = sinusoids(positions, grid.rows, columns, keyed_generator(torch.device("cpu"), seed, name))
    elif kind == "uniform":
        numbers = math.sqrt(3) * (2 * torch.rand(matrices, rows, columns, generator=generator) - 1)
    elif _is_plain(kind, grid):
        numbers = torch.randn(matrices, rows, columns, generator=generator)
    elif matrices > 1 or fewer * more <= SMALL_ELEMENTS or tile_width(more) is None:
        numbers = orthogonalize(torch.randn(matrices, rows, columns, generator=generator))
    else:
        left, right = tiled_factors(fewer, more, generator)
        if rows <= columns:
            band = left.shape[0] * right.shape[-1] // columns
            return RandomBlock(block, band, left, right)
        numbers = (left @ right).view(-1, more)[:fewer].mT
    return RandomBlock(block, block.height, numbers.reshape(-1, columns))


def shared_vector(seed: int, name: str, columns: int) -> Tensor:
    """The vector that all rows of a table share, of unit variance, shape ``(columns,)``, on the CPU."""
    return torch.randn(columns, generator=keyed_generator(torch.device("cpu"), seed, name))


def sinusoid_frequencies(count: int, columns: int) -> Tensor:
    """Frequencies of a table of so many positions, in radians per position, shape ``((columns + 1) // 2,)``."""
    return math.pi * (2 * count) ** -torch.linspace(1, 0, (columns + 1) // 2)


def sinusoids(positions: Tensor, count: int, columns: int, generator: torch.Generator) -> Tensor:
    """Sinusoids along the columns of a position table: near positions have similar rows, whatever the phases.

    Wavelengths are a geometric series from ``4 * count`` positions down to 2; each is there as sine and as cosine, with
    a random phase.

    Args:
        positions: Rows that are wanted, shape ``(rows,)``.
        count: Rows of the whole table.
        columns: Channels.
        generator: Draws the phases.

    Returns:
        Shape ``(rows, columns)``, of unit mean square in each row.

    References:
        Transformers, https://arxiv.org/abs/1706.03762
    """
    frequencies = sinusoid_frequencies(count, columns)
    phases = 2 * math.pi * torch.rand(len(frequencies), generator=generator)
    angles = positions[:, None] * frequencies + phases
    return math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)[:, :columns]
