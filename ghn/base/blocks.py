"""A parameter as matrices in the order of its memory, cut into blocks that depend on its shape alone."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

# These constants are part of the format: changing one changes the numbers that a seed gives.
BLOCK_ROWS = 256
"""A narrow matrix is cut into blocks of so many rows; a wide one into blocks as square as they can be."""
BLOCK_ELEMENTS = 2**22
"""Largest block, unless a single row is larger."""
BATCH_ELEMENTS = 2**18
"""Size of a block of several small matrices, or of independent numbers."""


@dataclass(frozen=True)
class Grid:
    """A stack of matrices of one size, one after the other in memory."""

    stack: int
    rows: int
    columns: int

    @property
    def height(self) -> int:
        """Rows of all matrices together."""
        return self.stack * self.rows


@dataclass(frozen=True)
class Block:
    """Rows of a grid that are drawn together: rows of one matrix, or several whole matrices."""

    start: int
    """First row, counted through the whole stack."""
    matrices: int
    rows: int
    """Rows of each matrix."""
    columns: int

    @property
    def height(self) -> int:
        """Rows of all its matrices together."""
        return self.matrices * self.rows


def blocks(grid: Grid, max_elements: int, max_rows: int) -> Iterator[Block]:
    """Cut a grid into whole small matrices, several to a block, or into rows of one large matrix.

    Args:
        grid: A parameter.
        max_elements: Most elements of a block; a single row is never cut.
        max_rows: Most rows of a block of a large matrix.
    """
    together = BATCH_ELEMENTS // (grid.rows * grid.columns)
    if grid.rows <= max_rows and together > 1:
        for first in range(0, grid.stack, together):
            yield Block(first * grid.rows, min(together, grid.stack - first), grid.rows, grid.columns)
        return
    step = max(1, min(max_rows, max_elements // grid.columns))
    for matrix in range(grid.stack):
        for start in range(0, grid.rows, step):
            yield Block(matrix * grid.rows + start, 1, min(step, grid.rows - start), grid.columns)


def keyed_generator(device: torch.device, *key: object) -> torch.Generator:
    """Random generator that depends on the key alone, never on what was drawn before.

    Args:
        device: Where numbers are drawn; CPU and CUDA give different numbers for one key.
        key: Seed, parameter name, block start …; their ``str`` is hashed.
    """
    digest = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)
