"""Low-rank matrices whose factors are generated row by row, so that no width is too large."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghn.decoder.positions import POSITION_FEATURES, axis_positions
from ghn.errors import ShapeError

HEAD_RULES = ("hyperfan", "xavier", "kaiming")
"""How heads start whose product is not normalized, see ``init_head_``."""

POSITIONS_AT_ONCE = 2**14
"""Rows of a factor that are generated together; part of the format in its last bits."""

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
        return self._finish(self.hidden(self.embedding(embeddings), self.position(positions)))

    def generate(self, projected: Tensor, sizes: tuple[int, ...], spatial: int) -> Tensor:
        """Generate factors a few thousand positions at a time.

        Args:
            projected: Embeddings after the ``embedding`` layer, shape ``(tensors, hidden)``.
            sizes: Sizes of the axes of the side, as ``axis_positions`` takes them.
            spatial: How many of the last ones are spatial.

        Returns:
            Shape ``(tensors, positions, rank)``; the bits of a tensor's factors don't depend on its company.
        """
        count = math.prod(sizes)
        parts = []
        for start in range(0, count, POSITIONS_AT_ONCE):
            stop = min(start + POSITIONS_AT_ONCE, count)
            waves = self.position(axis_positions(sizes, spatial, projected.device, start, stop))
            parts.append(self._finish(self.hidden(projected, waves)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def hidden(self, projected: Tensor, waves: Tensor) -> Tensor:
        """What the last layer reads, shape ``(tensors, positions, hidden)``, from what the first two layers gave."""
        mixed = torch.nn.functional.gelu(projected[:, None] + waves)
        return mixed + torch.nn.functional.gelu(_each(self.mix, mixed))

    def _finish(self, hidden: Tensor) -> Tensor:
        return _each(self.out, hidden)


@dataclass(frozen=True)
class Side:
    """Factors of one side of several tensors; those of equal geometry are stacked."""

    numbers: list[list[int]]
    """For each stack the numbers of its tensors."""
    stacks: list[Tensor]
    """Shapes ``(tensors, positions, rank)``."""

    @classmethod
    def of(
        cls, generator: FactorGenerator, projected: Tensor, geometries: Sequence[tuple[tuple[int, ...], int]]
    ) -> "Side":
        """Generate the factors of all tensors.

        Args:
            generator: Of this side.
            projected: As ``FactorGenerator.generate`` takes them, of all tensors.
            geometries: ``sizes`` and ``spatial`` of each, likewise.
        """
        stacked: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for number, geometry in enumerate(geometries):
            stacked.setdefault(geometry, []).append(number)
        stacks = [generator.generate(projected[numbers], *geometry) for geometry, numbers in stacked.items()]
        return cls(list(stacked.values()), stacks)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Side":
        """Change every stack."""
        return Side(self.numbers, [change(stack) for stack in self.stacks])

    def divided(self, by: Tensor) -> "Side":
        """Divide every tensor's factors by a number of its own, shape ``(tensors,)``."""
        pairs = zip(self.numbers, self.stacks, strict=True)
        return Side(self.numbers, [stack / by[numbers][:, None, None] for numbers, stack in pairs])

    def each(self) -> list[Tensor]:
        """The factors of each tensor, shape ``(positions, rank)``."""
        factors = {
            number: own
            for numbers, stack in zip(self.numbers, self.stacks, strict=True)
            for number, own in zip(numbers, stack.unbind(), strict=True)
        }
        return [factors[number] for number in range(len(factors))]

    def grams(self) -> Tensor:
        """Gram matrix of each tensor's factors, shape ``(tensors, rank, rank)``."""
        return torch.stack(self.map(lambda stack: stack.mT @ stack).each())


def _each(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """Apply a layer to ``(tensors, positions, features)`` tensor by tensor.

    As one large product, the bits of one tensor's results would depend on how many others there are.
    """
    return torch.baddbmm(layer.bias, inputs, layer.weight.mT.expand(len(inputs), -1, -1))


def generation_bytes(positions: int, hidden: int, rank: int) -> int:
    """Memory that generating and whitening one side of one tensor takes, about."""
    return 4 * (4 * hidden * min(positions, POSITIONS_AT_ONCE) + 4 * rank * positions)


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
    level = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    level = level.clamp_min(
        torch.finfo(gram.dtype).tiny / RIDGE
    )  # processors may take denormal ridges for zeros
    ridge = RIDGE * level[:, None, None] * torch.eye(rank, device=gram.device, dtype=gram.dtype)
    lower = torch.linalg.cholesky(gram + ridge)
    return torch.linalg.solve_triangular(lower, factors.mT, upper=False).mT


def product_norm(left: Tensor, right: Tensor, entries: Sequence[int]) -> Tensor:
    """Root mean square of the entries of products ``rows @ columns.mT``, without forming them.

    Args:
        left: Gram matrices ``rows.mT @ rows``, shape ``(tensors, rank, rank)``.
        right: Gram matrices ``columns.mT @ columns``, of the same shape.
        entries: Of each product.

    Returns:
        Shape ``(tensors,)``.

    Raises:
        ShapeError: If they are of different shapes.
    """
    if left.shape != right.shape:
        raise ShapeError(
            f"Gram matrices of shapes {tuple(left.shape)} and {tuple(right.shape)} are of no product"
        )
    squares = (left * right).sum(dim=(-2, -1)) / left.new_tensor(entries)
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()


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
    elif not head.weight.is_meta:  # there it has no values to be computed from
        typical = torch.randn(64, generator.embedding.in_features, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            moment = (
                generator.hidden(
                    generator.embedding(typical),
                    generator.position(axis_positions((64,), 0, typical.device)),
                )
                .square()
                .mean()
                .item()
            )
        nn.init.normal_(head.weight, std=1 / math.sqrt(head.in_features * moment))
    nn.init.zeros_(head.bias)
