"""From one embedding per parameter to its values."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from ghn.base import RuleSet
from ghn.base.blocks import Block, Grid
from ghn.base.sampling import Draw
from ghn.decoder.config import DecoderConfig
from ghn.decoder.learned import Product
from ghn.decoder.low_rank import FactorGenerator, Side, generation_bytes, init_head_, product_norm, whiten
from ghn.decoder.mip import shares
from ghn.decoder.plan import ParamPlan, plan_parameters
from ghn.decoder.remembered import Factors, Remembered
from ghn.decoder.statistics import StatisticsHead
from ghn.errors import ConfigError
from ghn.graph.graph import ComputationGraph, ParamSpec
from ghn.settings import own_settings

MEMORY = 2**28
"""Bytes that decoding takes at most beside its results, roughly, unless told otherwise."""

Range = tuple[int, int]


@dataclass(frozen=True)
class Piece:
    """Some rows of one parameter, made when asked for."""

    spec: ParamSpec
    start: int
    """First row, of the parameter in its memory order seen as rows of ``columns`` entries."""
    rows: int
    columns: int
    make: Callable[[Tensor | None], Tensor]
    """Returns the values, float32, shape ``(rows, columns)``; written into the contiguous tensor passed, if any."""


@dataclass(frozen=True)
class Order:
    """A graph to decode."""

    graph: ComputationGraph
    embeddings: Tensor
    """One row per attached entry of ``graph.params``, in that order, shape ``(tensors, embedding)``."""
    seed: int = 0
    """Keys the random base."""
    remembered: Remembered = field(default_factory=lambda: Remembered(room=0))
    """What earlier decoding of the same graph, embeddings, weights and rules has left, of which this one takes and
    adds."""
    rules: RuleSet | None = None
    """How parameters start; None is ``ghn.base.default_rules()``."""


@dataclass(frozen=True)
class BoundParam:
    """A parameter of an order, and the scalars by which what it is made of enters."""

    order: int
    plan: ParamPlan
    row: int
    """Of the embeddings of all orders."""
    gain: Tensor
    """On the mean, of a parameter without a base."""
    base: Tensor
    product: Tensor
    """On the learned part, where there is one."""


class Decoder(nn.Module):
    """Decodes every parameter of a graph: rule x (random base + low-rank learned part)."""

    def __init__(self, embedding: int, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.statistics = StatisticsHead(embedding, config)
        self.rows = FactorGenerator(embedding, config.hidden, config.rank)
        self.columns = FactorGenerator(embedding, config.hidden, config.rank)
        if config.output != "normalized":
            init_head_(self.rows, config.output)
            init_head_(self.columns, config.output)

    def forward(self, orders: Sequence[Order], learned: bool = True) -> list[dict[str, Tensor]]:
        """Decode the parameters of graphs, all at once: equal geometries of all graphs in one go.

        The values don't depend on the company, to the last bit on a CPU.

        Args:
            orders: The graphs.
            learned: False leaves the learned part out: rules and random bases alone.

        Returns:
            For each order float32 tensors by parameter name: of ``predicted_params``, in that order.

        Raises:
            ConfigError: If there is neither a base nor a learned part.
        """
        return collect(orders, self._stream(orders, learned))

    def stream(
        self,
        order: Order,
        learned: bool = True,
        memory: int = MEMORY,
        wanted: Callable[[ParamSpec, Grid], Range] | None = None,
    ) -> Iterator[Piece]:
        """Decode the parameters of one graph in pieces that take a bounded amount of memory.

        The values don't depend on ``memory`` or ``wanted``, to the last bit on a CPU. The pieces of a parameter come
        in order and one after the other; parameters come in groups of equal geometry. Read them under ``own_settings``.

        Args:
            order: The graph; what it remembers is part of ``memory``, at most ``REMEMBERED`` bytes.
            learned: As ``forward`` takes it.
            memory: Bytes to take beside the results, roughly; at least what one band of the largest tensor needs.
            wanted: Which rows of a parameter (as ``Piece.start`` counts them) are needed, as (start, stop); all of
                them if None. Pieces may begin before and end after that.
        """
        return (piece for _, piece in self._stream([order], learned, memory, wanted))

    def prepare(self, order: Order) -> list[ParamPlan]:
        """What every predicted parameter of an order is made of, unless it is remembered.

        Raises:
            PredictionError: If no rule applies to a parameter, or one fails or says what can't be.
        """
        if not order.remembered.plans:
            order.remembered.plans = plan_parameters(order.graph, self.config, order.rules)
        return order.remembered.plans

    def learned_shares(self, order: Order) -> tuple[dict[str, float], str]:
        """Share of each parameter's variance that is learned, by name, and where from; 0 of those that are not there.

        Of a vector it says how far it may move.
        """
        trust = (self.statistics(order.embeddings).trust ** 2).tolist()
        return {plan.spec.name: trust[plan.number] for plan in self.prepare(order) if plan.learned}, ""

    def _stream(
        self,
        orders: Sequence[Order],
        learned: bool,
        memory: int = MEMORY,
        wanted: Callable[[ParamSpec, Grid], Range] | None = None,
    ) -> Iterator[tuple[int, Piece]]:
        """Pieces with the number of their order."""
        if not learned and self.config.base == "none":
            raise ConfigError("base='none' and learned=False leave nothing to fill parameters with")
        for order in orders:
            self.prepare(order)
            order.remembered.begin(order.seed)
        embeddings = torch.cat([order.embeddings for order in orders])
        parts = self._parts(orders, embeddings, learned)
        sides = (self.rows.embedding(embeddings), self.columns.embedding(embeddings)) if learned else None
        for chunk in _chunks(parts, self.config, memory // 4):
            factors = self._chunk_factors(orders, chunk, sides, memory)
            for group in by_geometry(chunk):
                if not group[0].plan.init.random:
                    yield from zip((part.order for part in group), small_pieces(group, factors), strict=True)
                    continue
                for part in group:
                    learned_part = _product(part, factors.get(part.row))
                    pieces = stream_pieces(part, learned_part, orders[part.order], memory, wanted)
                    yield from ((part.order, piece) for piece in pieces)

    def _parts(self, orders: Sequence[Order], embeddings: Tensor, learned: bool) -> list[BoundParam]:
        """Bring what is predicted and what the rules say together, for the parameters of all orders."""
        statistics = self.statistics(embeddings) if learned else self.statistics.defaults(embeddings)
        found, first = [], 0
        for number, order in enumerate(orders):
            found += [(number, plan, first + plan.number) for plan in order.remembered.plans]
            first += len(order.embeddings)
        rows = [row for _, _, row in found]
        spread, random, shown = torch.zeros(3, *statistics.trust.shape, device=statistics.trust.device)
        spread[rows] = spread.new_tensor([plan.init.std for _, plan, _ in found])
        random[rows] = random.new_tensor([float(plan.init.random) for _, plan, _ in found])
        shown[rows] = shown.new_tensor([float(learned and plan.learned) for _, plan, _ in found])
        trust = statistics.trust * shown
        if self.config.base == "none":
            trust, random = torch.where(random > 0, 1.0, trust), torch.zeros_like(random)
        base, product = shares(trust, random)
        sizes = statistics.gain * spread
        gains = _each(statistics.gain, [row for _, plan, row in found if not plan.init.random])
        bases = _each(base * sizes, [row for _, plan, row in found if plan.init.random])
        products = _each(product * sizes, [row for _, plan, row in found if learned and plan.learned])
        unused = embeddings.new_zeros(())
        return [
            BoundParam(
                number, plan, row, gains.get(row, unused), bases.get(row, unused), products.get(row, unused)
            )
            for number, plan, row in found
        ]

    def _chunk_factors(
        self,
        orders: Sequence[Order],
        chunk: Sequence[BoundParam],
        sides: tuple[Tensor, Tensor] | None,
        memory: int,
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """Factors by row of the embeddings, of the parameters that have a learned part."""
        learned = [part for part in chunk if part.plan.learned]
        if sides is None or not learned:
            return {}
        make = partial(self._factors, sides, learned)
        if len(orders) == 1:
            numbers, remembered = tuple(part.plan.number for part in learned), orders[0].remembered
            factors = remembered.recall(remembered.factors, numbers, make, _factors_bytes, memory)
        else:
            factors = make()
        return {part.row: pair for part, pair in zip(learned, factors, strict=True)}

    def _factors(self, sides: tuple[Tensor, Tensor], parts: Sequence[BoundParam]) -> Factors:
        """Factors of shapes ``(rows, rank)`` and ``(columns, rank)`` of each parameter."""
        rows, layouts = [part.row for part in parts], [part.plan.layout for part in parts]
        left = Side.of(self.rows, sides[0][rows], [(layout.row_sizes, 0) for layout in layouts])
        right = Side.of(
            self.columns, sides[1][rows], [(layout.column_sizes, layout.spatial) for layout in layouts]
        )
        if self.config.output == "normalized":
            left, right = left.map(whiten), right.map(whiten)
            norms = product_norm(
                left.grams(), right.grams(), [layout.rows * layout.columns for layout in layouts]
            )
        else:
            norms = sides[0].new_full((len(parts),), math.sqrt(self.config.rank))
        return list(zip(left.divided(norms).each(), right.each(), strict=True))


def collect(orders: Sequence[Order], pieces: Iterable[tuple[int, Piece]]) -> list[dict[str, Tensor]]:
    """Make all pieces, each told with the number of its order, and put the parameters of each order together."""
    made: list[dict[str, list[Tensor]]] = [{} for _ in orders]
    with own_settings():
        for number, piece in pieces:
            made[number].setdefault(piece.spec.name, []).append(piece.make(None))
    return [
        {
            spec.name: _whole(pieces[spec.name]).reshape(spec.shape)
            for spec in order.graph.params
            if spec.name in pieces
        }
        for order, pieces in zip(orders, made, strict=True)
    ]


class Addend(Protocol):
    """Something of which any rows of a block can be added to a base."""

    def add(self, values: Tensor, block: Block, band: int, first: int) -> Tensor:
        """As ``Product.add``."""


def _product(part: BoundParam, factors: tuple[Tensor, Tensor] | None) -> Addend | None:
    if factors is None:
        return None
    return Product(factors[0] * part.product, factors[1], part.plan.layout, part.plan.arrangement)


def stream_pieces(
    part: BoundParam,
    learned: Addend | None,
    order: Order,
    memory: int,
    wanted: Callable[[ParamSpec, Grid], Range] | None,
) -> Iterator[Piece]:
    """The pieces of a parameter with a base, to which what is learned is added."""
    plan, remembered, device = part.plan, order.remembered, part.base.device
    grid = plan.arrangement.grid
    products: list[Addend] = []
    if plan.init.pattern is not None:
        left, right = (side.to(device) for side in plan.init.pattern.factors(order.seed))
        products.append(Product(left * part.base, right, plan.layout, plan.arrangement))
    if learned is not None:
        products.append(learned)
    begin, end = (0, grid.height) if wanted is None else wanted(plan.spec, grid)
    for block in plan.blocks:
        if block.start >= end or block.start + block.height <= begin:
            continue
        drawn = remembered.drawn(plan, order.seed, block, device, memory)
        first = max(0, begin - block.start) // drawn.band
        last = min(drawn.bands, -(-(end - block.start) // drawn.band))
        step = max(1, memory // 16 // (4 * drawn.band * block.columns))
        for band in range(first, last, step):
            yield _piece(plan, drawn, (band, min(band + step, last)), part.base, products)


def _piece(plan: ParamPlan, drawn: Draw, bands: Range, base: Tensor, products: Sequence[Addend]) -> Piece:
    block, (first, last) = drawn.block, bands
    start, stop = first * drawn.band, min(last * drawn.band, block.height)

    def make(out: Tensor | None) -> Tensor:
        values = drawn.make(first, last, base, out)
        for product in products:
            values = product.add(values, block, drawn.band, first)
        row = plan.init.padding_row
        padding = -1 if row is None else row - block.start - start
        if 0 <= padding < stop - start:
            values = values.index_fill(0, torch.tensor([padding], device=values.device), 0.0)
        return values if out is None or values.data_ptr() == out.data_ptr() else out.copy_(values)

    return Piece(plan.spec, block.start + start, stop - start, block.columns, make)


def _each(values: Tensor, rows: list[int]) -> dict[int, Tensor]:
    """Some entries of a vector, by row.

    All at once, since an index into a vector costs one of its length in the backward pass; and only those that are
    used, since the others would cost a zero each.
    """
    return dict(zip(rows, values[rows].unbind(), strict=True))


def _factors_bytes(factors: Factors) -> int:
    return sum(left.nbytes + right.nbytes for left, right in factors)


def small_pieces(
    group: Sequence[BoundParam], factors: Mapping[int, tuple[Tensor, Tensor]]
) -> Iterator[Piece]:
    """Whole parameters of one geometry without a base (biases, norms), which one product makes all of."""
    # In as few operations as can be: on a GPU each takes as long as the numbers of a small network.
    gains = torch.stack([part.gain for part in group])
    means = [part.plan.init.mean for part in group]
    numbers = gains.new_tensor([0.0 if isinstance(mean, Tensor) else mean for mean in means])
    made = gains * numbers
    if learned := group[0].row in factors:
        left, right = (torch.stack(side) for side in zip(*(factors[part.row] for part in group), strict=True))
        sizes = torch.stack([part.product for part in group])
        made = made[:, None, None] + (left * sizes[:, None, None]) @ right.mT
    for part, mean, entries in zip(group, means, made.unbind(), strict=True):
        plan = part.plan
        grid = plan.arrangement.grid
        values = plan.layout.restore(entries) if learned else entries.expand(plan.spec.shape)
        if isinstance(mean, Tensor):
            values = values + part.gain * mean.to(part.gain.device)
        values = values.reshape(grid.height, grid.columns)
        yield Piece(plan.spec, 0, grid.height, grid.columns, partial(_give, values))


def _whole(pieces: list[Tensor]) -> Tensor:
    return pieces[0].contiguous() if len(pieces) == 1 else torch.cat(pieces)


def _give(values: Tensor, out: Tensor | None) -> Tensor:
    return values if out is None else out.copy_(values)


def by_geometry(parts: Iterable[BoundParam]) -> Iterable[list[BoundParam]]:
    """Parameters of equal geometry together."""
    groups: dict[object, list[BoundParam]] = {}
    for part in parts:
        groups.setdefault(part.plan.geometry, []).append(part)
    return groups.values()


def _chunks(parts: Sequence[BoundParam], config: DecoderConfig, memory: int) -> Iterator[list[BoundParam]]:
    """Parameters in groups of one geometry, as many at a time as may go through the generators together."""
    chunk: list[BoundParam] = []
    taken = 0
    for part in itertools.chain.from_iterable(by_geometry(parts)):
        layout = part.plan.layout
        cost = sum(
            generation_bytes(side, config.hidden, config.rank) for side in (layout.rows, layout.columns)
        )
        if chunk and taken + cost > memory:
            yield chunk
            chunk, taken = [], 0
        chunk.append(part)
        taken += cost
    if chunk:
        yield chunk
