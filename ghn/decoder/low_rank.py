"""Low-rank matrices whose factors are generated row by row, so that no width is too large."""

import math

import torch
from torch import Tensor, nn

from ghn.decoder.layout import POSITION_FEATURES, axis_positions
from ghn.errors import ShapeError

HEAD_RULES = ("hyperfan", "xavier", "kaiming")
"""How heads start whose product is not normalized, see ``init_head_``."""

RIDGE = 1e-3
"""Directions whose share of a factor's variance is far below this fade out instead of being amplified."""


class FactorGenerator(nn.Module):
    """Shared network that maps (tensor embedding, position along one side) to one row of a factor.

    Its size depends on neither the number nor the width of the target's tensors, and any block of rows can be
    generated alone.

    References:
        LoGAH, https://arxiv.org/abs/2405.16287
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
        factors: Tensor = self.out(self.hidden(embeddings, positions))
        return factors

    def hidden(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        """What the last layer reads, shape ``(tensors, positions, hidden)``."""
        mixed = torch.nn.functional.gelu(self.embedding(embeddings)[:, None] + self.position(positions))
        return mixed + torch.nn.functional.gelu(self.mix(mixed))


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


def init_head_(generator: FactorGenerator, rule: str) -> None:
    """Initialize the last layer of a generator whose factors are multiplied without normalization.

    Under 'hyperfan', ``left @ right.T / sqrt(rank)`` has entries of unit variance, so that the spread of the target's
    weight, by its own fan-in or fan-out, is all that decides its size. 'xavier' and 'kaiming' look at the head's own
    fans, as is usual for networks that make no weights; sizes then come out wrong by factors that grow with the
    target's fan.

    Args:
        generator: Its ``out`` layer is written in place.
        rule: One of ``HEAD_RULES``.

    References:
        Hyperfan initialization, https://arxiv.org/abs/2312.08399
    """
    head = generator.out
    if rule == "xavier":
        nn.init.xavier_normal_(head.weight)
    elif rule == "kaiming":
        nn.init.kaiming_normal_(head.weight)
    else:
        typical = torch.randn(64, generator.embedding.in_features, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            moment = (
                generator.hidden(typical, axis_positions((64,), 0, typical.device)).square().mean().item()
            )
        nn.init.normal_(head.weight, std=1 / math.sqrt(head.in_features * moment))
    nn.init.zeros_(head.bias)
