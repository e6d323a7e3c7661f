"""From one embedding per parameter to its values."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from ghn.decoder.base import Draw, base_blocks, draw
from ghn.decoder.chunks import Block, Grid
from ghn.decoder.config import DecoderConfig
from ghn.decoder.heads import Pattern, constants, looking_back, patterns, sharing
from ghn.decoder.layout import Layout
from ghn.decoder.learned import Arrangement, Product
from ghn.decoder.low_rank import FactorGenerator, Side, generation_bytes, init_head_, product_norm, whiten
from ghn.decoder.mip import shares
from ghn.decoder.pixels import whiten_pixels
from ghn.decoder.predicted import predicted_params
from ghn.decoder.scale import Place, Scale, centre_of, places, scale_of
from ghn.decoder.statistics import StatisticsHead
from ghn.errors import ConfigError
from ghn.graph.graph import ComputationGraph, ParamSpec
from ghn.graph.ops import MIXING_ROLES
from ghn.settings import own_settings

MEMORY = 2**28
"""Bytes that decoding takes at most beside its results, roughly, unless told otherwise."""

REMEMBERED = 2**26
"""Bytes that are kept at most for the next prediction of the same graph."""

LARGE_TABLE = 2**20
"""Elements from which a table of vectors has orthogonal rows too: drawing so many independent numbers is slow."""

Key = TypeVar("Key")
Kept = TypeVar("Kept")
Factors = list[tuple[Tensor, Tensor]]
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
class _Recipe:
    """What one parameter is made of."""

    number: int
    """Row of the embeddings."""
    spec: ParamSpec
    layout: Layout
    arrangement: Arrangement
    scale: Scale
    kind: str
    """Of the base, if the scale is random."""
    pixels: bool
    """Whether the base is to suit natural images."""
    learned: bool
    """Whether there is a learned part."""
    pattern: Pattern | None = None
    """What a random base is added to."""
    constant: Tensor | None = None
    """What a centre is added to."""
    padding: int | None = None
    """Row that is zero."""

    @property
    def geometry(self) -> tuple[object, ...]:
        """Parameters that share it are made together."""
        layout = self.layout
        return (layout.row_sizes, layout.column_sizes, layout.spatial, self.scale.random, self.learned)


@dataclass
class Remembered:
    """What one prediction leaves for the next with the same graph, embeddings and weights; empty at first."""

    recipes: list[_Recipe] = field(default_factory=list)
    factors: dict[tuple[int, ...], Factors] = field(default_factory=dict)
    """Of parameters that go through the generators together, by their numbers: rows and columns of each."""
    draws: dict[tuple[int, int, int], Draw] = field(default_factory=dict)
    """Random numbers of the latest seed, by that, number of the parameter and first row of the block."""
    seed: int | None = None
    room: int = REMEMBERED
    """Bytes that may still be kept."""

    @property
    def learned(self) -> dict[str, int]:
        """Numbers of the parameters with a learned part, by name."""
        return {recipe.spec.name: recipe.number for recipe in self.recipes if recipe.learned}

    def begin(self, seed: int) -> None:
        """Forget the random numbers of another seed."""
        if self.seed != seed:
            self.room += sum(drawn.nbytes for drawn in list(self.draws.values()))
            self.draws.clear()
            self.seed = seed

    def recall(
        self,
        kept: dict[Key, Kept],
        key: Key,
        make: Callable[[], Kept],
        size: Callable[[Kept], int],
        memory: int,
    ) -> Kept:
        """What a table holds under a key, or something new; that is kept if all of it fits a quarter of ``memory``.

        Gradients are never kept, nor are tensors that can't have any later.
        """
        if (found := kept.get(key)) is not None:
            return found
        made = make()
        nbytes = size(made)
        passing = torch.is_grad_enabled() or torch.is_inference_mode_enabled()
        if not passing and REMEMBERED - self.room + nbytes <= min(REMEMBERED, memory // 4):
            self.room -= nbytes
            kept[key] = made
        return made


@dataclass(frozen=True)
class Order:
    """A graph to decode."""

    graph: ComputationGraph
    embeddings: Tensor
    """One row per attached entry of ``graph.params``, in that order, shape ``(tensors, embedding)``."""
    seed: int = 0
    """Keys the random base."""
    remembered: Remembered = field(default_factory=lambda: Remembered(room=0))
    """What earlier decoding of the same graph, embeddings and weights has left, of which this one takes and adds."""


@dataclass(frozen=True)
class _Part:
    """A parameter of an order, and the scalars by which what it is made of enters."""

    order: int
    recipe: _Recipe
    row: int
    """Of the embeddings of all orders."""
    gain: Tensor
    """On the centre."""
    base: Tensor
    product: Tensor


class Decoder(nn.Module):
    """Decodes every parameter of a graph: scale rule x (random base + low-rank learned part)."""

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
            learned: False leaves the learned part out: scale rules and random bases alone.

        Returns:
            For each order float32 tensors by parameter name: of ``predicted_params``, in that order.

        Raises:
            ConfigError: If there is neither a base nor a learned part.
        """
        made: list[dict[str, list[Tensor]]] = [{} for _ in orders]
        with own_settings():
            for number, piece in self._stream(orders, learned):
                made[number].setdefault(piece.spec.name, []).append(piece.make(None))
        return [
            {
                spec.name: _whole(pieces[spec.name]).reshape(spec.shape)
                for spec in order.graph.params
                if spec.name in pieces
            }
            for order, pieces in zip(orders, made, strict=True)
        ]

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
            order.remembered.recipes = order.remembered.recipes or self._recipes(order.graph)
            order.remembered.begin(order.seed)
        embeddings = torch.cat([order.embeddings for order in orders])
        parts = self._parts(orders, embeddings, learned)
        sides = (self.rows.embedding(embeddings), self.columns.embedding(embeddings)) if learned else None
        for chunk in _chunks(parts, self.config, memory // 4):
            factors = self._chunk_factors(orders, chunk, sides, memory)
            for group in _groups(chunk):
                if not group[0].recipe.scale.random:
                    yield from zip((part.order for part in group), _small(group, factors), strict=True)
                    continue
                for part in group:
                    pieces = _pieces(part, factors.get(part.row), orders[part.order], memory, wanted)
                    yield from ((part.order, piece) for piece in pieces)

    @torch.inference_mode(False)  # they are kept, also for calls that record gradients
    def _recipes(self, graph: ComputationGraph) -> list[_Recipe]:
        surroundings = places(graph)
        predicted = {spec.name for spec in predicted_params(graph)}
        scales = self._scales(graph, surroundings)
        spreads = {name: scale.spread for name, scale in scales.items()}
        looking = [] if self.config.base == "none" else looking_back(graph)
        added, constant = patterns(looking, spreads), constants(looking)
        recipes = []
        for number, spec in enumerate(spec for spec in graph.params if spec.node is not None):
            if spec.name not in predicted:
                continue
            layout, place, scale = Layout.of(spec), surroundings[spec.name], scales[spec.name]
            kind = self.config.base
            if kind != "none" and spec.role == "position" and place.network.tokens:
                kind = "waves"  # order is what attention first learns from a text, see scripts/LOG.md
            if kind == "orthogonal" and spec.role not in MIXING_ROLES and spec.numel < LARGE_TABLE:
                kind = "normal"
            recipes.append(
                _Recipe(
                    number=number,
                    spec=spec,
                    layout=layout,
                    arrangement=Arrangement.of(spec, layout),
                    scale=scale,
                    kind=kind,
                    pixels=place.pixels and kind != "none",
                    learned=kind == "none" or self._has_learned_part(place, scale),
                    pattern=sharing(spec) if scale.common else added.get(spec.name),
                    constant=constant.get(spec.name),
                    padding=place.padding,
                )
            )
        return recipes

    def _scales(self, graph: ComputationGraph, surroundings: Mapping[str, Place]) -> dict[str, Scale]:
        """Scale rules of all attached parameters, by name."""
        specs = {spec.name: spec for spec in graph.params}
        scales = {name: scale_of(specs[name], place, self.config.fan) for name, place in surroundings.items()}
        if self.config.output not in ("xavier", "kaiming"):
            return scales
        return {name: replace(scale, spread=1.0) if scale.random else scale for name, scale in scales.items()}

    def _has_learned_part(self, place: Place, scale: Scale) -> bool:
        if self.config.scope == "tokens" and not place.network.tokens:
            return False
        return not scale.random or place.boundary or self.config.scope == "all"

    def _parts(self, orders: Sequence[Order], embeddings: Tensor, learned: bool) -> list[_Part]:
        """Bring what is predicted and what the scale rules say together, for the parameters of all orders."""
        statistics = self.statistics(embeddings) if learned else self.statistics.defaults(embeddings)
        found, first = [], 0
        for number, order in enumerate(orders):
            found += [(number, recipe, first + recipe.number) for recipe in order.remembered.recipes]
            first += len(order.embeddings)
        rows = [row for _, _, row in found]
        spread, random, shown = torch.zeros(3, *statistics.trust.shape, device=statistics.trust.device)
        spread[rows] = spread.new_tensor([recipe.scale.spread for _, recipe, _ in found])
        random[rows] = random.new_tensor([float(recipe.scale.random) for _, recipe, _ in found])
        shown[rows] = shown.new_tensor([float(learned and recipe.learned) for _, recipe, _ in found])
        trust = statistics.trust * shown
        if self.config.base == "none":
            trust, random = torch.where(random > 0, 1.0, trust), torch.zeros_like(random)
        base, product = shares(trust, random)
        sizes = statistics.gain * spread
        # All at once: each index into a vector would cost one of its length in the backward pass.
        gains, bases, products = statistics.gain.unbind(), (base * sizes).unbind(), (product * sizes).unbind()
        return [
            _Part(number, recipe, row, gains[row], bases[row], products[row]) for number, recipe, row in found
        ]

    def _chunk_factors(
        self,
        orders: Sequence[Order],
        chunk: Sequence[_Part],
        sides: tuple[Tensor, Tensor] | None,
        memory: int,
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """Factors by row of the embeddings, of the parameters that have a learned part."""
        learned = [part for part in chunk if part.recipe.learned]
        if sides is None or not learned:
            return {}
        make = partial(self._factors, sides, learned)
        if len(orders) == 1:
            numbers, remembered = tuple(part.recipe.number for part in learned), orders[0].remembered
            factors = remembered.recall(remembered.factors, numbers, make, _factors_bytes, memory)
        else:
            factors = make()
        return {part.row: pair for part, pair in zip(learned, factors, strict=True)}

    def _factors(self, sides: tuple[Tensor, Tensor], parts: Sequence[_Part]) -> Factors:
        """Factors of shapes ``(rows, rank)`` and ``(columns, rank)`` of each parameter."""
        rows, layouts = [part.row for part in parts], [part.recipe.layout for part in parts]
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


def _pieces(
    part: _Part,
    factors: tuple[Tensor, Tensor] | None,
    order: Order,
    memory: int,
    wanted: Callable[[ParamSpec, Grid], Range] | None,
) -> Iterator[Piece]:
    """The pieces of a parameter with a base."""
    recipe, remembered, device = part.recipe, order.remembered, part.base.device
    grid, products = recipe.arrangement.grid, []
    if recipe.pattern is not None:
        left, right = (side.to(device) for side in recipe.pattern.factors(order.seed))
        products.append(Product(left * part.base, right, recipe.layout, recipe.arrangement))
    if factors is not None:
        products.append(Product(factors[0] * part.product, factors[1], recipe.layout, recipe.arrangement))
    begin, end = (0, grid.height) if wanted is None else wanted(recipe.spec, grid)
    for block in base_blocks(recipe.kind, grid):
        if block.start >= end or block.start + block.height <= begin:
            continue
        make = partial(_draw, recipe, order.seed, block, device)
        key = order.seed, recipe.number, block.start  # with the seed, as another thread may be at another one
        drawn = remembered.recall(remembered.draws, key, make, lambda drawn: drawn.nbytes, memory)
        first = max(0, begin - block.start) // drawn.band
        last = min(drawn.bands, -(-(end - block.start) // drawn.band))
        step = max(1, memory // 16 // (4 * drawn.band * block.columns))
        for band in range(first, last, step):
            yield _piece(recipe, drawn, (band, min(band + step, last)), part.base, products)


def _draw(recipe: _Recipe, seed: int, block: Block, device: torch.device) -> Draw:
    grid = recipe.arrangement.grid
    drawn = draw(recipe.kind, seed, recipe.spec.name, grid, block, device)
    if not recipe.pixels:
        return drawn
    rows = drawn.make(0, drawn.bands, torch.ones((), device=device))
    return Draw(block, block.height, whiten_pixels(rows, recipe.spec.shape[1:]))


def _piece(recipe: _Recipe, drawn: Draw, bands: Range, base: Tensor, products: Sequence[Product]) -> Piece:
    block, (first, last) = drawn.block, bands
    start, stop = first * drawn.band, min(last * drawn.band, block.height)

    def make(out: Tensor | None) -> Tensor:
        values = drawn.make(first, last, base, out)
        for product in products:
            values = product.add(values, block, drawn.band, first)
        padding = -1 if recipe.padding is None else recipe.padding - block.start - start
        if 0 <= padding < stop - start:
            values = values.index_fill(0, torch.tensor([padding], device=values.device), 0.0)
        return values if out is None or values.data_ptr() == out.data_ptr() else out.copy_(values)

    return Piece(recipe.spec, block.start + start, stop - start, block.columns, make)


def _factors_bytes(factors: Factors) -> int:
    return sum(left.nbytes + right.nbytes for left, right in factors)


def _small(group: Sequence[_Part], factors: Mapping[int, tuple[Tensor, Tensor]]) -> Iterator[Piece]:
    """Whole parameters of one geometry without a base (biases, norms), which one product makes all of."""
    products: Sequence[Tensor] = ()
    if group[0].row in factors:
        left, right = (torch.stack(side) for side in zip(*(factors[part.row] for part in group), strict=True))
        sizes = torch.stack([part.product for part in group])
        products = ((left * sizes[:, None, None]) @ right.mT).unbind()
    for position, part in enumerate(group):
        recipe = part.recipe
        grid = recipe.arrangement.grid
        centre = part.gain * centre_of(recipe.spec, recipe.scale, part.gain.device)
        values = centre.expand(recipe.spec.shape)
        if products:
            values = values + recipe.layout.restore(products[position])
        if recipe.constant is not None:
            values = values + part.gain * recipe.constant.to(part.gain.device)
        values = values.reshape(grid.height, grid.columns)
        yield Piece(recipe.spec, 0, grid.height, grid.columns, partial(_give, values))


def _whole(pieces: list[Tensor]) -> Tensor:
    return pieces[0].contiguous() if len(pieces) == 1 else torch.cat(pieces)


def _give(values: Tensor, out: Tensor | None) -> Tensor:
    return values if out is None else out.copy_(values)


def _groups(parts: Iterable[_Part]) -> Iterable[list[_Part]]:
    """Parameters of equal geometry together."""
    groups: dict[object, list[_Part]] = {}
    for part in parts:
        groups.setdefault(part.recipe.geometry, []).append(part)
    return groups.values()


def _chunks(parts: Sequence[_Part], config: DecoderConfig, memory: int) -> Iterator[list[_Part]]:
    """Parameters in groups of one geometry, as many at a time as may go through the generators together."""
    chunk: list[_Part] = []
    taken = 0
    for part in itertools.chain.from_iterable(_groups(parts)):
        layout = part.recipe.layout
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
