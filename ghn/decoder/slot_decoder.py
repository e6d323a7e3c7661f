"""From a graph to its parameters by slots: weights that networks share are the learned part beside the base."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ghn.base import RuleSet
from ghn.base.blocks import Block
from ghn.decoder.cache import DecodeCache
from ghn.decoder.config import DENSE, DecoderConfig
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
from ghn.decoder.slots import COHERENT, Cut, CutParam, SlotBank, whole_matrix
from ghn.decoder.statistics import StatisticsHead
from ghn.graph.graph import ComputationGraph

WHOLE_BITS = 4
"""Bits of a number, in checkpoints, of a matrix that is learned itself: rounding is smaller than what every start
draws anew (``FRESH``)."""

FACTOR_BITS = 8
"""Likewise of low-rank factors."""

VECTOR_BITS = 16
"""Likewise of vectors."""

FADING = 1.5
"""Where what is learned fades out with depth (see ``SlotDecoder.fades``), a parameter at relative depth d in [0, 1] has
(1 - d) to this power of it."""


class SlotDecoder(nn.Module):
    """Decodes every parameter of a graph: rule x (random base + what its slot has for it).

    The embeddings of the graph encoder say how far each parameter trusts its slot; while they are untrained, all do
    wholly. The interface is ``Decoder``'s.
    """

    def __init__(self, embedding: int, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.bank = SlotBank(config.slots)
        self.statistics = StatisticsHead(embedding, config)
        last = self.statistics.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)

    def plan(self, graph: ComputationGraph, rules: RuleSet | None = None) -> GraphPlan:
        """What every predicted parameter of a graph is made of, and what there are slots for; see ``Decoder.plan``."""
        params = plan_parameters(graph, replace(self.config, scope="all"), rules)
        cuts = self.bank.cuts(graph, params)
        learned = [replace(param, learned=param.spec.name in cuts.params) for param in params]
        return GraphPlan(graph, learned, cuts)

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
        """Decode the parameters of a graph in slices; see ``Decoder.stream``."""
        cache = cache or DecodeCache(room=0)
        cache.begin(seed)
        cut_params = plan.cuts.params if learned and plan.cuts else {}
        for group in by_geometry(self._bound(plan, embeddings, cut_params, learned)):
            if not group[0].plan.init.random:
                factors = {
                    bound.plan.number: self._vector(cut_params[bound.plan.spec.name])
                    for bound in group
                    if bound.plan.learned
                }
                yield from constant_slices(group, factors)
                continue
            for bound in group:
                cut_param = cut_params.get(bound.plan.spec.name) if bound.plan.learned else None
                update = None if cut_param is None else SlotUpdate(self.bank, cut_param, bound)
                yield from random_slices(bound, update, seed, memory, wanted, cache)

    @property
    def bits(self) -> dict[str, int]:
        """Bits that checkpoints store a number of a table in, by its name in the state dictionary."""
        by_name: dict[str, int] = {}
        for number, name in enumerate(self.bank.names):
            rank = self.bank.sizes[name.rpartition("/")[0]].rank
            bits = {DENSE: WHOLE_BITS, 0: VECTOR_BITS}.get(rank, FACTOR_BITS)
            by_name[f"bank.rows.{number}"] = bits
            if rank > 0:
                by_name[f"bank.columns.{number}"] = FACTOR_BITS
        return by_name

    def learned_shares(
        self, plan: GraphPlan, embeddings: Tensor, learned: Learned = True
    ) -> tuple[dict[str, float], str]:
        """See ``Decoder.learned_shares``; of a vector, how far it moves."""
        assert plan.cuts is not None
        learned_shares = {}
        for bound in self._bound(plan, embeddings, plan.cuts.params, learned):
            if bound.plan.learned:
                whole = (
                    bound.product**2 + bound.base**2 if bound.plan.init.random else bound.product.new_ones(())
                )
                learned_shares[bound.plan.spec.name] = (bound.product**2 / whole).item()
        fading = "; fading out with depth, for other data" if self.fades(plan, learned) else ""
        return learned_shares, plan.cuts.origin + fading

    def fades(self, plan: GraphPlan, learned: Learned) -> bool:
        """See ``Decoder.fades``: where ``learned`` is 'early'; where it is True, in all networks but those of tokens.

        The first layers of trained networks serve most data, and the last ones their own (Yosinski et al.,
        https://arxiv.org/abs/1411.1792). Classes of other images mean something else, while tokens of a vocabulary mean
        the same in all texts. docs/log/slots-on-other-data.md has what it is worth.
        """
        cut_params = plan.cuts.params if plan.cuts else {}
        if learned is not True or not cut_params:
            return bool(cut_params) and learned == "early"
        return not any(
            param.spec.role == "embedding" and param.spec.name in cut_params for param in plan.params
        )

    def _bound(
        self, plan: GraphPlan, embeddings: Tensor, cut_params: Mapping[str, CutParam], learned: Learned
    ) -> list[BoundParam]:
        """Every parameter with the sizes of its random base and of what its slot has for it."""
        modulation = (2 * torch.sigmoid(self.statistics.net(embeddings)[:, 1])).clamp(max=1)
        fading = self.fades(plan, learned)
        bounds = []
        for param in plan.params:
            spread, cut_param = param.init.std, cut_params.get(param.spec.name)
            left = (1 - plan.depths.get(param.spec.name, 0.0)) ** FADING if fading else 1.0
            # What was learned of a vector leaves nothing of one that starts at random, so it has to be most of it.
            instead = cut_param is not None and cut_param.plan.init.random != param.init.random
            if cut_param is not None and left > (0.5 if instead else 0.0):
                param = replace(cut_param.plan, learned=True)
            else:
                param = replace(param, learned=False)
            one, trust = modulation.new_ones(()), modulation[param.number] * left
            if not param.init.random:
                bounds.append(BoundParam(param, one, one, trust))
                continue
            if cut_param is None or not param.learned:
                bounds.append(BoundParam(param, one, one * spread, trust.new_zeros(())))
                continue
            base, _ = shares(trust * COHERENT, one)
            bounds.append(BoundParam(param, one, base * spread, trust * coherence(cut_param) * spread))
        return bounds

    def _vector(self, cut_param: CutParam) -> tuple[Tensor, Tensor]:
        """What a vector is moved by, as factors of one column each."""
        taken = []
        for cut in cut_param.cuts:
            table = self.bank.rows[cut.slot]
            taken.append(table[: cut.height] if cut.rows is None else table[cut.rows])
        offsets = torch.cat(taken)
        if cut_param.cuts[0].where is not None:
            offsets = offsets[
                torch.argsort(torch.cat([cut.where for cut in cut_param.cuts if cut.where is not None]))
            ]
        if not isinstance(cut_param.centre, Tensor) and cut_param.centre:
            offsets = offsets * cut_param.centre
        return offsets.new_ones(1, 1), offsets[:, None]


def coherence(cut_param: CutParam) -> float:
    """Size of the slots' part of a parameter beside its scale rule: less the more its units are copies.

    Nothing fills the rest up: what is drawn anew would drown what wide networks have learned.
    """
    rows = sum(cut.height for cut in cut_param.cuts)
    return COHERENT * math.sqrt(sum(cut.height * cut.dilution**2 for cut in cut_param.cuts) / rows)


@dataclass(frozen=True)
class _IndexedRows:
    """Rows of a parameter, many of which may be equal, by their numbers in a table of different ones."""

    table: Tensor
    """Shape ``(units, columns)``."""
    index: Tensor
    """Row of the table for each row of the parameter's layout."""


class SlotUpdate:
    """What the slots have for one parameter: rows of it can be added to a base, in the order of memory.

    Args:
        bank: The tables.
        cut_param: The parameter's cuts.
        bound: The parameter; ``bound.product`` is the size that the result is to have.
    """

    def __init__(self, bank: SlotBank, cut_param: CutParam, bound: BoundParam) -> None:
        whole = coherence(cut_param)
        tables, indices, start = [], [], 0
        for cut in cut_param.cuts:
            size = bound.product * (COHERENT * cut.dilution / whole)
            table, index = _values(bank, cut, size)
            tables.append(table)
            indices.append(index + start)
            start += len(table)
        index = torch.cat(indices)
        if cut_param.cuts[0].where is not None:
            index = index[
                torch.argsort(torch.cat([cut.where for cut in cut_param.cuts if cut.where is not None]))
            ]
        table = torch.cat(tables)
        memory_layout, layout = cut_param.plan.memory_layout, cut_param.plan.layout
        self._whole: Tensor | None = None
        self._indexed: _IndexedRows | None = None
        if cut_param.cuts[0].width == 1:
            self._whole = table[index].reshape(memory_layout.grid.height, -1)
        elif not memory_layout.transposed:
            order = torch.arange(layout.columns).view(layout.column_sizes or (1,))
            order = order.permute(memory_layout.columns).reshape(-1) if memory_layout.columns else order
            in_order = bool((order == torch.arange(layout.columns)).all())
            self._indexed = _IndexedRows(table if in_order else table[:, order], index)
        else:
            entries = layout.restore(table[index]).contiguous()
            self._whole = entries.view(memory_layout.grid.height, memory_layout.grid.columns)

    def add(self, values: Tensor, block: Block, band: int, first: int) -> Tensor:
        """Add rows of a block; see ``LowRankUpdate.add``."""
        start = block.start + first * band
        rows = slice(start, start + len(values))
        if self._whole is not None:
            own = self._whole[rows]
        else:
            assert self._indexed is not None
            own = self._indexed.table[self._indexed.index[rows]]
        return values + own if torch.is_grad_enabled() else values.add_(own)


def _values(bank: SlotBank, cut: Cut, size: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows of a cut, of root mean square ``size`` in all, and which of them each of its rows is."""
    device = bank.share.device
    rows, columns = bank.rows[cut.slot], bank.columns[cut.slot]
    distinct = torch.arange(cut.height) if cut.rows is None or not cut.repeats else cut.rows
    unique, index, times = torch.unique(distinct, return_inverse=True, return_counts=True)
    some = torch.empty_like(unique).scatter_(0, index, torch.arange(cut.height))
    some = some.to(device)
    size = size * bank.gain[cut.slot].exp()
    if cut.dense:
        block = whole_matrix(rows, replace(cut, rows=unique) if cut.repeats else cut)
        mean_square = (block.square().mean(1) * times.to(device)).sum() / cut.height
        return block * (size * mean_square.clamp_min(1e-30).rsqrt()), index.to(device)
    left = rows[: cut.height] if cut.rows is None else rows[cut.rows.to(device)]
    right = columns[: cut.width] if cut.columns is None else columns[cut.columns.to(device)]
    if cut.copy_weights is not None:
        right = right * cut.copy_weights.to(device)[:, None]
    assert cut.master is not None
    mean_square = ((left.mT @ left) * (right.mT @ right)).sum() / (cut.height * cut.width)
    share = torch.sigmoid(bank.share[cut.slot])
    product = (left[some] * (share * mean_square.clamp_min(1e-30).rsqrt())) @ right.mT
    values = cut.master.to(device)[some] * (1 - share**2).sqrt() + product
    return values * size, index.to(device)
