"""From one embedding per parameter to its values."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from ghn.decoder.base import Draw, base_blocks, draw
from ghn.decoder.chunks import Block, Grid
from ghn.decoder.config import DecoderConfig
from ghn.decoder.layout import Layout
from ghn.decoder.learned import Arrangement, Product
from ghn.decoder.low_rank import FactorGenerator, generation_bytes, init_head_, product_norm, whiten
from ghn.decoder.mip import shares
from ghn.decoder.pixels import whiten_pixels
from ghn.decoder.scale import Place, Scale, centre_tensor, places, scale_of
from ghn.decoder.statistics import Statistics, StatisticsHead
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
Factors = tuple[Tensor, Tensor]
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

    @property
    def geometry(self) -> tuple[object, ...]:
        """Parameters that share it go through the generators together."""
        layout = self.layout
        return (layout.row_sizes, layout.column_sizes, layout.spatial, self.scale.random, self.learned)


@dataclass
class Remembered:
    """What one prediction leaves for the next with the same graph, embeddings and weights; empty at first."""

    recipes: list[_Recipe] = field(default_factory=list)
    factors: dict[tuple[int, ...], Factors] = field(default_factory=dict)
    """Of parameters that go through the generators together, by their numbers."""
    draws: dict[tuple[int, int, int], Draw] = field(default_factory=dict)
    """Random numbers of the latest seed, by that, number of the parameter and first row of the block."""
    seed: int | None = None
    room: int = REMEMBERED
    """Bytes that may still be kept."""

    @property
    def learned(self) -> list[int]:
        """Numbers of the parameters with a learned part."""
        return [recipe.number for recipe in self.recipes if recipe.learned]

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

        Gradients are never kept.
        """
        if (found := kept.get(key)) is not None:
            return found
        made = make()
        nbytes = size(made)
        if not torch.is_grad_enabled() and REMEMBERED - self.room + nbytes <= min(REMEMBERED, memory // 4):
            self.room -= nbytes
            kept[key] = made
        return made


@dataclass(frozen=True)
class _Coefficients:
    """Factors by which the parts of every parameter enter, each of shape ``(tensors,)``."""

    gain: Tensor
    """On the centre."""
    base: Tensor
    product: Tensor


def has_rule(spec: ParamSpec) -> bool:
    """Whether a rule says what the parameter should be."""
    return spec.node is not None and spec.role != "unknown" and spec.dtype.is_floating_point


def predicted_params(graph: ComputationGraph) -> list[ParamSpec]:
    """Parameters that are predicted, in the order of ``graph.params``; the model keeps its own values of the others.

    Fixed ones (``requires_grad=False``), such as tables of sines, are kept, unless the whole model is fixed.
    """
    ruled = [spec for spec in graph.params if has_rule(spec)]
    return [spec for spec in ruled if spec.trainable] or ruled


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

    def forward(
        self,
        embeddings: Tensor,
        graph: ComputationGraph,
        seed: int = 0,
        learned: bool = True,
        remembered: Remembered | None = None,
    ) -> dict[str, Tensor]:
        """Decode the parameters of one graph, all at once.

        Args:
            embeddings: One row per attached entry of ``graph.params``, in that order, shape ``(tensors, embedding)``.
            graph: The target.
            seed: Keys the random base.
            learned: False leaves the learned part out: scale rules and random bases alone.
            remembered: As ``stream`` takes it.

        Returns:
            Float32 tensors by parameter name: of ``predicted_params``, in that order.

        Raises:
            ConfigError: If there is neither a base nor a learned part.
        """
        made: dict[str, list[Tensor]] = {}
        with own_settings():
            for piece in self.stream(embeddings, graph, seed, learned, remembered=remembered):
                made.setdefault(piece.spec.name, []).append(piece.make(None))
        return {
            spec.name: torch.cat(made[spec.name]).reshape(spec.shape)
            for spec in graph.params
            if spec.name in made
        }

    def stream(
        self,
        embeddings: Tensor,
        graph: ComputationGraph,
        seed: int = 0,
        learned: bool = True,
        memory: int = MEMORY,
        wanted: Callable[[ParamSpec, Grid], Range] | None = None,
        remembered: Remembered | None = None,
    ) -> Iterator[Piece]:
        """Decode the parameters of one graph in pieces that take a bounded amount of memory.

        The values don't depend on ``memory`` or ``wanted``, to the last bit on a CPU. The pieces of a parameter come
        in order and one after the other; parameters come in groups of equal geometry. Read them under ``own_settings``.

        Args:
            embeddings: As ``forward`` takes them, and so are ``graph``, ``seed`` and ``learned``.
            graph: The target.
            seed: Keys the random base.
            learned: Whether there is a learned part.
            memory: Bytes to take beside the results, roughly; at least what one band of the largest tensor needs.
            wanted: Which rows of a parameter (as ``Piece.start`` counts them) are needed, as (start, stop); all of
                them if None. Pieces may begin before and end after that.
            remembered: What an earlier call left, of which this one takes and adds; part of ``memory``, at most
                ``REMEMBERED`` bytes.
        """
        if not learned and self.config.base == "none":
            raise ConfigError("base='none' and learned=False leave nothing to fill parameters with")
        remembered = Remembered(room=0) if remembered is None else remembered  # there is no next call
        remembered.recipes = recipes = remembered.recipes or self._recipes(graph)
        remembered.begin(seed)
        statistics = self.statistics(embeddings) if learned else self.statistics.defaults(embeddings)
        coefficients = self._coefficients(statistics, recipes, learned)
        sides = (self.rows.embedding(embeddings), self.columns.embedding(embeddings)) if learned else None
        for group in _groups(recipes, self.config, memory // 4):
            factors = None
            if sides is not None and group[0].learned:
                numbers = tuple(recipe.number for recipe in group)
                make = partial(self._factors, sides, group)
                factors = remembered.recall(remembered.factors, numbers, make, _factors_bytes, memory)
            if not group[0].scale.random:
                yield from _small(group, factors, coefficients)
                continue
            for position, recipe in enumerate(group):
                factor = None if factors is None else (factors[0][position], factors[1][position])
                yield from self._pieces(recipe, factor, coefficients, seed, memory, wanted, remembered)

    def _recipes(self, graph: ComputationGraph) -> list[_Recipe]:
        surroundings = places(graph)
        predicted = {spec.name for spec in predicted_params(graph)}
        recipes = []
        for number, spec in enumerate(spec for spec in graph.params if spec.node is not None):
            if spec.name not in predicted:
                continue
            layout, place = Layout.of(spec), surroundings[spec.name]
            scale = scale_of(spec, place, self.config.fan)
            if scale.random and self.config.output in ("xavier", "kaiming"):
                scale = replace(scale, spread=1.0)
            kind = self.config.base
            if kind != "none" and spec.role == "position" and place.network.tokens:
                kind = "waves"  # order is what attention first learns from a text, see scripts/LOG.md
            if kind == "orthogonal" and spec.role not in MIXING_ROLES and spec.numel < LARGE_TABLE:
                kind = "normal"
            learned = kind == "none" or self._has_learned_part(place, scale)
            pixels = place.pixels and kind != "none"
            arrangement = Arrangement.of(spec, layout)
            recipes.append(_Recipe(number, spec, layout, arrangement, scale, kind, pixels, learned))
        return recipes

    def _has_learned_part(self, place: Place, scale: Scale) -> bool:
        if self.config.scope == "tokens" and not place.network.tokens:
            return False
        return not scale.random or place.boundary or self.config.scope == "all"

    def _coefficients(
        self, statistics: Statistics, recipes: Sequence[_Recipe], learned: bool
    ) -> _Coefficients:
        """Bring what is predicted and what the scale rules say together."""
        numbers = [recipe.number for recipe in recipes]
        spread, random, shown = torch.zeros(3, *statistics.trust.shape, device=statistics.trust.device)
        spread[numbers] = spread.new_tensor([recipe.scale.spread for recipe in recipes])
        random[numbers] = random.new_tensor([float(recipe.scale.random) for recipe in recipes])
        shown[numbers] = shown.new_tensor([float(learned and recipe.learned) for recipe in recipes])
        trust = statistics.trust * shown
        if self.config.base == "none":
            trust, random = torch.where(random > 0, 1.0, trust), torch.zeros_like(random)
        base, product = shares(trust, random)
        sizes = statistics.gain * spread
        return _Coefficients(statistics.gain, base * sizes, product * sizes)

    def _factors(self, sides: tuple[Tensor, Tensor], group: Sequence[_Recipe]) -> Factors:
        """Row factors ``(tensors, rows, rank)`` and column factors ``(tensors, columns, rank)`` of one geometry."""
        numbers, layout = [recipe.number for recipe in group], group[0].layout
        left = self.rows.generate(sides[0][numbers], layout.row_sizes, 0)
        right = self.columns.generate(sides[1][numbers], layout.column_sizes, layout.spatial)
        if self.config.output != "normalized":
            return left / math.sqrt(self.config.rank), right
        left, right = whiten(left), whiten(right)
        return left / product_norm(left, right)[:, None, None], right

    def _pieces(
        self,
        recipe: _Recipe,
        factor: Factors | None,
        coefficients: _Coefficients,
        seed: int,
        memory: int,
        wanted: Callable[[ParamSpec, Grid], Range] | None,
        remembered: Remembered,
    ) -> Iterator[Piece]:
        """The pieces of a parameter with a base."""
        grid, number, device = recipe.arrangement.grid, recipe.number, coefficients.base.device
        product = None
        if factor is not None:
            left = factor[0] * coefficients.product[number]
            product = Product(left, factor[1], recipe.layout, recipe.arrangement)
        begin, end = (0, grid.height) if wanted is None else wanted(recipe.spec, grid)
        for block in base_blocks(recipe.kind, grid):
            if block.start >= end or block.start + block.height <= begin:
                continue
            make = partial(_draw, recipe, seed, block, device)
            key = seed, number, block.start  # with the seed, as another thread may be at another one
            drawn = remembered.recall(remembered.draws, key, make, lambda drawn: drawn.nbytes, memory)
            first = max(0, begin - block.start) // drawn.band
            last = min(drawn.bands, -(-(end - block.start) // drawn.band))
            step = max(1, memory // 16 // (4 * drawn.band * block.columns))
            for band in range(first, last, step):
                yield _piece(recipe, drawn, (band, min(band + step, last)), coefficients, product)


def _draw(recipe: _Recipe, seed: int, block: Block, device: torch.device) -> Draw:
    grid = recipe.arrangement.grid
    drawn = draw(recipe.kind, seed, recipe.spec.name, grid, block, device, recipe.scale.common)
    if not recipe.pixels:
        return drawn
    rows = drawn.make(0, drawn.bands, torch.ones((), device=device))
    return Draw(block, block.height, whiten_pixels(rows, recipe.spec.shape[1:]))


def _piece(
    recipe: _Recipe, drawn: Draw, bands: Range, coefficients: _Coefficients, product: Product | None
) -> Piece:
    block, (first, last) = drawn.block, bands
    start, stop = first * drawn.band, min(last * drawn.band, block.height)

    def make(out: Tensor | None) -> Tensor:
        values = drawn.make(first, last, coefficients.base[recipe.number], out)
        if product is not None:
            values = product.add(values, block, drawn.band, first)
        return values if out is None or values.data_ptr() == out.data_ptr() else out.copy_(values)

    return Piece(recipe.spec, block.start + start, stop - start, block.columns, make)


def _factors_bytes(factors: Factors) -> int:
    return factors[0].nbytes + factors[1].nbytes


def _small(group: Sequence[_Recipe], factors: Factors | None, coefficients: _Coefficients) -> Iterator[Piece]:
    """Whole parameters without a base (biases, norms), which one product makes all of."""
    numbers = [recipe.number for recipe in group]
    products = None
    if factors is not None:
        products = (factors[0] * coefficients.product[numbers][:, None, None]) @ factors[1].mT
    for position, recipe in enumerate(group):
        grid = recipe.arrangement.grid
        centre = coefficients.gain[recipe.number] * centre_tensor(
            recipe.spec, recipe.scale, coefficients.gain.device
        )
        values = centre.expand(recipe.spec.shape)
        if products is not None:
            values = values + recipe.layout.restore(products[position])
        values = values.reshape(grid.height, grid.columns)
        yield Piece(recipe.spec, 0, grid.height, grid.columns, partial(_give, values))


def _give(values: Tensor, out: Tensor | None) -> Tensor:
    return values if out is None else out.copy_(values)


def _groups(recipes: Sequence[_Recipe], config: DecoderConfig, memory: int) -> Iterator[list[_Recipe]]:
    """Parameters of one geometry, as many at a time as may be generated together."""
    members: dict[object, list[_Recipe]] = {}
    for recipe in recipes:
        members.setdefault(recipe.geometry, []).append(recipe)
    for group in members.values():
        layout = group[0].layout
        cost = sum(
            generation_bytes(side, config.hidden, config.rank) for side in (layout.rows, layout.columns)
        )
        step = max(1, memory // cost)
        for start in range(0, len(group), step):
            yield group[start : start + step]
