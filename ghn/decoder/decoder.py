"""From one embedding per parameter to its values."""

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ghn.base import RuleSet
from ghn.decoder.cache import DecodeCache, Factors
from ghn.decoder.config import DecoderConfig
from ghn.decoder.learned import LowRankUpdate
from ghn.decoder.low_rank import FactorGenerator, Side, generation_bytes, init_head_, product_norm, whiten
from ghn.decoder.mip import shares
from ghn.decoder.plan import GraphPlan, Learned, plan_parameters
from ghn.decoder.slices import (
    MEMORY,
    BoundParam,
    ParamSlice,
    Wanted,
    by_geometry,
    constant_slices,
    random_slices,
)
from ghn.decoder.statistics import StatisticsHead
from ghn.errors import ConfigError
from ghn.graph.graph import ComputationGraph


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

    def plan(self, graph: ComputationGraph, rules: RuleSet | None = None) -> GraphPlan:
        """What every predicted parameter of a graph is made of.

        Args:
            graph: The target.
            rules: How parameters start; None is ``ghn.base.default_rules()``.

        Raises:
            PredictionError: If no rule applies to a parameter, or one fails or says what can't be.
        """
        return GraphPlan(graph, plan_parameters(graph, self.config, rules))

    def stream(
        self,
        plan: GraphPlan,
        embeddings: Tensor,
        seed: int,
        learned: Learned = True,
        memory: int = MEMORY,
        wanted: Wanted | None = None,
        cache: DecodeCache | None = None,
    ) -> Iterator[ParamSlice]:
        """Decode the parameters of a graph in slices that take a bounded amount of memory.

        The values don't depend on ``memory``, ``wanted`` or ``cache``, to the last bit on a CPU. The slices of a
        parameter come in order and one after the other; parameters come in groups of equal geometry. Read them under
        ``own_settings``.

        Args:
            plan: Of the graph.
            embeddings: One row per attached entry of ``graph.params``, in that order, shape ``(tensors, embedding)``.
            seed: Keys the random base.
            learned: False leaves the learned part out: rules and random bases alone. This decoder takes all or nothing.
            memory: Bytes to take beside the results, roughly; at least what one band of the largest tensor needs.
            wanted: Which rows of a parameter are needed; all of them if None. Slices may begin before and end after.
            cache: What earlier decoding of the same graph, embeddings and weights has left, to which this one adds; a
                part of ``memory``.

        Raises:
            ConfigError: If there is neither a base nor a learned part.
        """
        if not learned and self.config.base == "none":
            raise ConfigError("base='none' and learned=False leave nothing to fill parameters with")
        cache = cache or DecodeCache(room=0)
        cache.begin(seed)
        parts = self._bound(plan, embeddings, learned)
        sides = (self.rows.embedding(embeddings), self.columns.embedding(embeddings)) if learned else None
        for chunk in _chunks(parts, self.config, memory // 4):
            factors = self._chunk_factors(chunk, sides, memory, cache)
            for group in by_geometry(chunk):
                if not group[0].plan.init.random:
                    yield from constant_slices(group, factors)
                    continue
                for part in group:
                    product = _product(part, factors.get(part.plan.number))
                    yield from random_slices(part, product, seed, memory, wanted, cache)

    def fades(self, plan: GraphPlan, learned: Learned) -> bool:
        """Whether a graph has less than all that was learned, fading out with depth; here it is all or nothing."""
        return False

    def learned_shares(
        self, plan: GraphPlan, embeddings: Tensor, learned: Learned = True
    ) -> tuple[dict[str, float], str]:
        """Share of each parameter's variance that is learned, by name, and where from; 0 of those that are not there.

        Of a vector it says how far it may move.
        """
        trust = (self.statistics(embeddings).trust ** 2).tolist()
        return {param.spec.name: trust[param.number] for param in plan.params if param.learned}, ""

    def _bound(self, plan: GraphPlan, embeddings: Tensor, learned: Learned) -> list[BoundParam]:
        """Bring what is predicted and what the rules say together."""
        statistics = self.statistics(embeddings) if learned else self.statistics.defaults(embeddings)
        params = plan.params
        rows = [param.number for param in params]
        spread, random, shown = torch.zeros(3, *statistics.trust.shape, device=statistics.trust.device)
        spread[rows] = spread.new_tensor([param.init.std for param in params])
        random[rows] = random.new_tensor([float(param.init.random) for param in params])
        shown[rows] = shown.new_tensor([float(bool(learned) and param.learned) for param in params])
        trust = statistics.trust * shown
        if self.config.base == "none":
            trust, random = torch.where(random > 0, 1.0, trust), torch.zeros_like(random)
        base, product = shares(trust, random)
        sizes = statistics.gain * spread
        gains = _each(statistics.gain, [param.number for param in params if not param.init.random])
        bases = _each(base * sizes, [param.number for param in params if param.init.random])
        products = _each(product * sizes, [param.number for param in params if learned and param.learned])
        unused = embeddings.new_zeros(())
        return [
            BoundParam(
                param,
                gains.get(param.number, unused),
                bases.get(param.number, unused),
                products.get(param.number, unused),
            )
            for param in params
        ]

    def _chunk_factors(
        self,
        chunk: Sequence[BoundParam],
        sides: tuple[Tensor, Tensor] | None,
        memory: int,
        cache: DecodeCache,
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """Factors by number of the parameter, of those that have a learned part."""
        learned = [part for part in chunk if part.plan.learned]
        if sides is None or not learned:
            return {}
        numbers = tuple(part.plan.number for part in learned)
        make = partial(self._factors, sides, learned)
        factors = cache.get(cache.factors, numbers, make, _factors_bytes, memory)
        return dict(zip(numbers, factors, strict=True))

    def _factors(self, sides: tuple[Tensor, Tensor], parts: Sequence[BoundParam]) -> Factors:
        """Factors of shapes ``(rows, rank)`` and ``(columns, rank)`` of each parameter."""
        rows, layouts = [part.plan.number for part in parts], [part.plan.layout for part in parts]
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


def _product(part: BoundParam, factors: tuple[Tensor, Tensor] | None) -> LowRankUpdate | None:
    if factors is None:
        return None
    return LowRankUpdate(factors[0] * part.product, factors[1], part.plan.layout, part.plan.memory_layout)


def _each(values: Tensor, rows: list[int]) -> dict[int, Tensor]:
    """Some entries of a vector, by row.

    All at once, since an index into a vector costs one of its length in the backward pass; and only those that are
    used, since the others would cost a zero each.
    """
    return dict(zip(rows, values[rows].unbind(), strict=True))


def _factors_bytes(factors: Factors) -> int:
    return sum(left.nbytes + right.nbytes for left, right in factors)


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
