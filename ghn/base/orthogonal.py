"""Random matrices with orthogonal rows at the price of a few multiplications per entry."""

import math
from functools import lru_cache

import torch
from torch import Tensor

TILES = range(16, 65)
"""Widths of the small matrices that larger ones are made of; 32 is best."""


@lru_cache(maxsize=1024)
def tile_width(columns: int) -> int | None:
    """The divisor of a number of columns that is nearest to 32, multiples of eight first; None if there is none."""
    divisors = [width for width in TILES if columns % width == 0]
    return min(divisors, key=lambda width: abs(math.log2(width / 32)) + (width % 8 > 0) / 4, default=None)


def haar(normal: Tensor) -> Tensor:
    """Orthonormal columns, uniformly distributed, from normal numbers ``(..., rows, columns)``, rows >= columns."""
    orthonormal, triangular = torch.linalg.qr(normal)
    # The sign of R's diagonal makes the distribution uniform over orthogonal matrices (Mezzadri, math-ph/0609050).
    return orthonormal * triangular.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)


def orthogonalize(block: Tensor) -> Tensor:
    """Orthonormal rows (or columns, whichever are fewer), scaled to unit root mean square; any leading axes."""
    rows, columns = block.shape[-2:]
    tall = haar(block if rows >= columns else block.mT)
    return (tall if rows >= columns else tall.mT) * math.sqrt(max(rows, columns))


def tiled_factors(rows: int, columns: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Factors of a matrix with orthogonal rows of ``columns`` entries of unit variance.

    Rows are numbered (a, b), columns (d, e); with small random orthogonal ``A``, ``B``, ``E``, random signs ``s``,
    ``t`` and random shifts ``u``, the matrix is ``sum_c A[a, c] s[b, c] B[b, d + u[c]] t[d, c] E[c, e]``. Summing over
    columns makes ``E`` vanish, then over ``d`` leaves only equal ``b``, then over ``c`` only equal ``a``: rows are
    orthogonal exactly. An entry is a sum of 16 to 64 independent products, so nearly normal (kurtosis about 3.3), and
    takes as many multiplications, while only one number in twenty is drawn.

    Args:
        rows: At most ``columns``.
        columns: A number with a ``tile_width``.
        generator: A generator on the CPU.

    Returns:
        ``left``, shape ``(band * columns / width, width)``, and ``right``, shape ``(bands, width, width)``:
        ``left @ right[a]``, seen as ``(band, columns)``, are rows ``a * band`` and following; the last ones may be
        more than asked for.

    References:
        Monarch matrices, https://arxiv.org/abs/2204.00595 (products of two block-diagonal matrices)
    """
    width = tile_width(columns)
    assert width is not None and rows <= columns
    tiles = columns // width
    band = -(-rows // width)
    bands = -(-rows // band)
    first, last = haar(torch.randn(2, width, width, generator=generator))
    middle = haar(torch.randn(tiles, band, generator=generator)).mT
    shifts = torch.randint(tiles, (width,), generator=generator)
    signs = torch.randint(2, (band + tiles, width), generator=generator, dtype=torch.float32) * 2 - 1
    entries = middle.index_select(1, ((torch.arange(tiles)[:, None] + shifts) % tiles).view(-1))
    left = entries.view(band, tiles, width).mul_(signs[:band, None]).mul_(signs[band:])
    right = first[:bands, :, None] * (last * math.sqrt(columns))
    return left.reshape(band * tiles, width), right
