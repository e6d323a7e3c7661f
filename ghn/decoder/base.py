"""The random part of a predicted matrix: what an untrained hypernetwork writes."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from ghn.decoder.chunks import normal_block, row_blocks
from ghn.decoder.layout import Layout

BASES = ("orthogonal", "normal", "none")


def base_matrix(kind: str, seed: int, name: str, layout: Layout, device: torch.device) -> Tensor:
    """Draw the base of one parameter, of unit root mean square, keyed by seed, name and block.

    Args:
        kind: 'normal' (independent entries) or 'orthogonal' (orthonormal rows, or columns, within each block and
            group).
        seed: Seed of the whole prediction.
        name: Name of the parameter.
        layout: How the parameter is seen as a matrix.
        device: Where to draw.

    Returns:
        Shape ``(rows, columns)``.
    """
    inner = layout.row_sizes[-1] if len(layout.row_sizes) > 1 else layout.rows
    blocks = []
    for first in range(0, layout.rows, inner):
        for start, stop in row_blocks(inner, layout.columns):
            block = normal_block(seed, name, first + start, first + stop, layout.columns, device)
            blocks.append(orthogonalize(block) if kind == "orthogonal" else block)
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def orthogonalize(block: Tensor) -> Tensor:
    """Orthonormal rows (or columns, whichever are fewer), scaled to unit root mean square; same shape."""
    rows, columns = block.shape
    if min(rows, columns) == 1:
        return block
    tall = block if rows >= columns else block.mT
    # The sign of R's diagonal makes the distribution uniform over orthogonal matrices (Mezzadri, math-ph/0609050).
    orthonormal, triangular = torch.linalg.qr(tall)
    orthonormal = orthonormal * triangular.diagonal().sign()
    return (orthonormal if rows >= columns else orthonormal.mT) * math.sqrt(max(rows, columns))


def smooth_kernels(matrix: Tensor, layout: Layout, smoothness: Tensor) -> Tensor:
    """Shape the spatial spectrum of convolution kernels: damp high frequencies, keep the total variance.

    Trained kernels are smooth, large ones most of all (https://arxiv.org/abs/2210.03651).

    Args:
        matrix: White kernels, shape ``(rows, columns)``; columns end in the spatial axes.
        layout: Of the parameter.
        smoothness: Non-negative scalar; frequency ``f`` (half waves per kernel) is scaled by
            ``exp(-smoothness * f**2 / 2)``; 0 leaves the matrix as it is.

    Returns:
        Same shape and variance.
    """
    sizes = layout.column_sizes[len(layout.column_sizes) - layout.spatial :]
    if max(sizes, default=1) == 1:
        return matrix
    kernels = matrix.reshape(-1, *sizes)
    for axis, size in enumerate(sizes, start=1):
        cosines = _cosines(size).to(matrix)
        spectrum = torch.exp(-0.5 * smoothness * torch.arange(size, device=matrix.device) ** 2)
        spectrum = spectrum * torch.rsqrt(spectrum.square().mean())
        filters = cosines.mT @ (spectrum[:, None] * cosines)
        kernels = torch.tensordot(kernels, filters, dims=([axis], [0])).movedim(-1, axis)
    return kernels.reshape(matrix.shape)


@lru_cache(maxsize=64)
def _cosines(size: int) -> Tensor:
    """Orthonormal cosine basis (DCT-II), shape ``(size, size)``, rows by frequency."""
    waves = torch.cos(math.pi / size * (torch.arange(size) + 0.5) * torch.arange(size)[:, None])
    return waves / waves.norm(dim=1, keepdim=True)
