"""Low-rank matrices whose factors are generated row by row, so that no width is too large."""

import math

import torch
from torch import Tensor, nn

from ghn.decoder.layout import POSITION_FEATURES
from ghn.errors import ShapeError

RIDGE = 1e-3
"""Directions whose share of a factor's variance is far below this fade out instead of being amplified."""


class FactorGenerator(nn.Module):
    """Shared network that maps (tensor embedding, position along one side) to one row of a factor.

    Its size depends on neither the number nor the width of the target's tensors, and any block of rows can be
    generated alone.

    References:
        LoGAH, https://arxiv.org/abs/2405.16287 (low-rank decoding);
        Hyperfan initialization, https://arxiv.org/abs/2312.08399 (variance of the last layer)
    """

    def __init__(self, embedding: int, hidden: int, rank: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(embedding, hidden)
        self.position = nn.Linear(POSITION_FEATURES, hidden, bias=False)
        self.mix = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, rank)

    def forward(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        """Generate the factors of several tensors that share a geometry.

        Args:
            embeddings: Shape ``(tensors, embedding)``.
            positions: Shape ``(positions, POSITION_FEATURES)``.

        Returns:
            Factors, shape ``(tensors, positions, rank)``.
        """
        hidden = torch.nn.functional.gelu(self.embedding(embeddings)[:, None] + self.position(positions))
        factors: Tensor = self.out(hidden + torch.nn.functional.gelu(self.mix(hidden)))
        return factors


def whiten(factors: Tensor) -> Tensor:
    """Centre factors over their positions and make their columns orthonormal, up to a ridge.

    Factors from a smooth network share a mean direction, which would put most of a product's energy into its first
    singular direction; whitening flattens the spectrum, and what is learned is the choice of subspace.

    Args:
        factors: Shape ``(tensors, positions, rank)``; a single position is not centred.

    Returns:
        Factors of the same shape with Gram matrix close to the identity (exactly zero directions stay zero).
    """
    if factors.shape[-2] > 1:
        factors = factors - factors.mean(dim=-2, keepdim=True)
    gram = factors.mT @ factors
    rank = gram.shape[-1]
    level = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(gram.dtype).tiny)
    ridge = RIDGE * level[:, None, None] * torch.eye(rank, device=gram.device, dtype=gram.dtype)
    lower = torch.linalg.cholesky(gram + ridge)
    return torch.linalg.solve_triangular(lower, factors.mT, upper=False).mT


def product_norm(left: Tensor, right: Tensor) -> Tensor:
    """Root mean square of the entries of ``left @ right.mT`` without forming the product.

    Args:
        left: Shape ``(tensors, rows, rank)``.
        right: Shape ``(tensors, columns, rank)``.

    Returns:
        Shape ``(tensors,)``.

    Raises:
        ShapeError: If the factors disagree on ``tensors`` or ``rank``.
    """
    if left.shape[0] != right.shape[0] or left.shape[-1] != right.shape[-1]:
        raise ShapeError(f"factors of shapes {tuple(left.shape)} and {tuple(right.shape)} have no product")
    squares = ((left.mT @ left) * (right.mT @ right)).sum(dim=(-2, -1))
    return (squares / (left.shape[1] * right.shape[1])).clamp_min(torch.finfo(squares.dtype).tiny).sqrt()


def hyperfan_(head: nn.Linear, input_variance: float, rank: int, columns_read: int, rule: str) -> None:
    """Initialize a factor head so that a plain low-rank product has fan-scaled variance without normalization.

    With ``W = left @ right.T / sqrt(rank)`` the entries' variance is the product of the factors' variances, so each
    head takes the square root of the wanted ``1 / columns_read``.

    Args:
        head: Last layer of a ``FactorGenerator``; written in place.
        input_variance: Second moment of the head's inputs.
        rank: Width of the factors.
        columns_read: Fan of a typical target: fan-in for ``rule='in'``, fan-out for ``rule='out'``.
        rule: 'in' (keeps activations' variance) or 'out' (keeps gradients' variance).

    Raises:
        ShapeError: If ``rank`` is not the head's output width.

    References:
        Hyperfan initialization, https://arxiv.org/abs/2312.08399
    """
    if head.out_features != rank:
        raise ShapeError(f"a head with {head.out_features} outputs can't make factors of rank {rank}")
    if rule not in ("in", "out"):
        raise ShapeError(f"rule must be 'in' or 'out', got {rule!r}")
    nn.init.normal_(head.weight, std=math.sqrt(columns_read**-0.5 / (head.in_features * input_variance)))
    nn.init.zeros_(head.bias)
