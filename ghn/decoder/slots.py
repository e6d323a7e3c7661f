r"""Slots: weights that networks share place by place, and the networks' own parts cut out of them.

Every kind of place (see ``ghn.graph.addresses``) of a family of networks has a slot, with a row and a column for every
unit that was met on a side. Either the slot's matrix itself is learned, :math:`L = T / \mathrm{rms}(T)`, which learns
fastest; or, for tables that would be too large, two factors beside a fixed random matrix :math:`M`, which is made from
the slot's name and never stored,

.. math:: L = \sqrt{1 - \rho^2} M + \rho\, U V^\top / \mathrm{rms}(U V^\top).

A parameter at that place takes the rows and columns of its own units. What it takes has unit mean square whatever its
size, times the slot's gain, and enters the parameter as its learned part. Units beyond the tables repeat those
within, and what reads a repeated unit is divided by the number of its copies, so that the function stays.

References:
    Once-for-All, https://arxiv.org/abs/1908.09791; Net2Net, https://arxiv.org/abs/1511.05641
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ghn.base.blocks import keyed_generator
from ghn.base.init import Init
from ghn.decoder.config import DENSE
from ghn.decoder.equivalents import equivalents
from ghn.decoder.plan import ParamPlan
from ghn.decoder.resize import Resize, is_other_size, of_grey, reads_grey, resize_of, with_points
from ghn.decoder.units import Segment, segments
from ghn.graph.addresses import MOST_STEPS, Address
from ghn.graph.graph import ComputationGraph

FRESH = 0.15
"""Share of every learned matrix that is drawn anew for each seed, as a standard deviation: seeds differ by it."""

COHERENT = math.sqrt(1 - FRESH**2)
"""Share that is left for what the slot has, as a standard deviation."""

START_SHARE = 0.8
"""Share of the low-rank part, beside the fixed matrix, before anything is learned."""

LEAST_COVERAGE = 0.6
"""Share of a network's segments (parts of parameters) that a family must have slots for, or nothing learned is used."""

LEAST_COMMON = 0.3
"""Share of a family's kinds of matrices, of whichever stage and size, that a network must have. Sampled members have
0.36 and more; networks without residual branches have 0.21 and less of other families', and a ResNet's slots harm them
(docs/log/hand-written-cnns.md)."""

Limits = Mapping[tuple[int, int], int]
"""How many units stand for hidden units that are more than a table has, by their tie (see ``Segment``) and number."""

_TOKENS = re.compile(r"embedding/(\d+)")
"""How many tokens a table has, of a kind of place."""

_SIZED = re.compile(r"\b(patch|map|position)\d+")
"""What of a kind of place says how large its patch, map or grid is."""

_CACHED_MASTERS = 512
"""Fixed matrices that are kept in memory."""


@dataclass(frozen=True)
class SlotSize:
    """Largest sizes that were met at one kind of place."""

    row_blocks: int
    row_units: int
    column_blocks: int
    column_units: int
    kernel: int
    """Points along one side of the largest kernel."""
    steps: int
    """Slots along the relative depth."""
    rank: int
    """Width of the tables; 0 for vectors, whose table is one column; ``DENSE`` for one whole table."""
    part_units: int = 0
    """Units of the parts behind the first, where the blocks are parts of a concatenation; else, or if unknown, 0."""

    @property
    def rows(self) -> int:
        """Rows of the row table."""
        return self.row_blocks * self.row_units

    @property
    def columns(self) -> int:
        """Rows of the column table."""
        return self.column_blocks * self.column_units * self.kernel**2

    def union(self, other: "SlotSize") -> "SlotSize":
        """The smallest size that both fit into."""
        return SlotSize(*map(max, zip(astuple(self), astuple(other), strict=True)))

    @property
    def numel(self) -> int:
        """Numbers that are learned at all steps."""
        if self.rank == DENSE:
            return self.steps * self.rows * self.columns
        return self.steps * (self.rank * (self.rows + self.columns) if self.rank else self.rows)


def slot_key(family: str, address: Address) -> str:
    """Name of a kind of place; queries, keys and values that one normalization serves share its vectors."""
    kind = address.kind
    if kind.startswith(("norm_", "layer_scale")) and set(kind.rpartition(">")[2]) <= set("qkv"):
        kind = f"{kind.rpartition('>')[0]}>qkv"
    return f"{family}/{address.stage}/{kind}"


def slot_sizes(
    networks: Iterable[tuple[str, ComputationGraph, Sequence[ParamPlan]]], rank: int
) -> dict[str, tuple[int, ...]]:
    """Sizes of all slots that some networks need, each with its family: what ``DecoderConfig.slots`` holds.

    Args:
        networks: Family, graph, and what its parameters are made of.
        rank: Of kernels; matrices, whose tables are short, get twice as much. ``DENSE`` has no factors.
    """
    sizes: dict[str, SlotSize] = {}
    vectors: set[str] = set()
    for family, graph, plans in networks:
        matrices = {plan.spec.name: plan.init.random for plan in plans}
        for segment in segments(graph):
            if segment.spec.name not in matrices:
                continue
            matrix, key = matrices[segment.spec.name], slot_key(family, segment.address)
            own = _size(segment, matrix)
            size = sizes[key].union(own) if key in sizes else own
            if not matrix:
                vectors.add(key)
            elif key in vectors and size.columns == 1:  # a vector that only some start at random
                matrix = False
            # Factors can't have each group's columns beside its rows.
            whole = rank == DENSE or segment.groups > 1
            wide = DENSE if whole else rank * (1 if size.kernel > 1 else 2)
            sizes[key] = replace(size, rank=min(wide, size.rows, size.columns) if matrix else 0)
    return {key: astuple(size) for key, size in sorted(sizes.items())}


def _size(segment: Segment, matrix: bool) -> SlotSize:
    """Of a slot that fits one segment; without rank."""
    row_blocks, row_units = (segment.row_units.max(0).values + 1).tolist()
    column_blocks, column_units = (segment.column_units[:, :2].max(0).values + 1).tolist()
    return SlotSize(
        row_blocks=row_blocks,
        row_units=row_units,
        column_blocks=column_blocks,
        column_units=column_units,
        kernel=_kernel_side(segment.column_units),
        steps=min(segment.address.count, MOST_STEPS),
        rank=0,
        part_units=_part_units(segment, matrix),
    )


def _kernel_side(column_units: Tensor) -> int:
    """Points along a side of the smallest square that kernels, whose centres lie on each other, fit into."""
    places = column_units[:, 2:]
    return max(2 * -int(places.min()), 2 * int(places.max()) + 1)


def _part_units(segment: Segment, matrix: bool) -> int:
    """Units of the widest part behind the first of what a segment reads or, as a vector, is of."""
    units = (segment.column_units if matrix else segment.row_units)[:, :2]
    return int(units[units[:, 0] > 0, 1].max()) + 1 if segment.joined else 0


@dataclass(frozen=True)
class Cut:
    """What one segment takes out of a slot."""

    slot: int
    rows: Tensor | None
    """Rows of the row table, long; None if they are the first ones in order."""
    columns: Tensor | None
    """Rows of the column table, likewise; of several groups of rows shape ``(groups, width)``."""
    height: int
    width: int
    copy_weights: Tensor | None
    """One over the number of copies of each column's unit, in the shape of ``columns``; None if all are single."""
    dilution: float
    """Root of the share of columns whose units are no copies: what is coherent shrinks with it."""
    where: Tensor | None
    """Numbers of the segment's rows in its parameter, long; None for all."""
    master: Tensor | None = None
    """The fixed matrix, ``(height, width)``; None for vectors and where there is none."""
    dense: bool = False
    """Whether the matrix itself is learned."""
    resize: Resize | None = None
    """How what the table has is brought to other patches or another grid of tokens; None where sizes agree."""

    @property
    def taken(self) -> int:
        """Rows that it takes of the row table, copies included."""
        return (
            self.height if self.resize is None or self.resize.tokens is None else self.resize.tokens.shape[1]
        )

    @property
    def repeats(self) -> bool:
        """Whether rows are equal where they are the same row of the table."""
        return self.resize is None and (self.columns is None or self.columns.ndim == 1)

    def by_row(self, side: Tensor) -> Tensor:
        """``columns`` or ``copy_weights`` of each row, shape ``(height, width)``; ``(width,)`` if all rows have one."""
        return side if side.ndim == 1 else side.repeat_interleave(self.height // len(side), 0)


@dataclass(frozen=True)
class CutParam:
    """A parameter and its cuts; without any, nothing is known of it."""

    plan: ParamPlan
    cuts: tuple[Cut, ...]
    centre: Tensor | float = 0.0
    """Where a vector starts by its rule: what is learned moves it."""


@dataclass(frozen=True)
class Cuts:
    """What slots have for a network."""

    params: Mapping[str, CutParam]
    """Of the parameters that there are slots for, by name."""
    origin: str
    """Whose slots they are, or why there are none, for a report."""


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """What a family has for a network."""

    family: str
    known: float
    """Share of the network's segments that it has slots for."""
    common: float
    """Share of its places that the network has."""
    reads_input: bool
    """Whether it has what reads the input: a trunk is worth nothing behind another stem."""
    tokens: frozenset[int]
    """Sizes of the network's tables of tokens that it doesn't have."""
    alike: bool
    """Whether the network has enough of its kinds of matrices, too."""
    cut: Sequence[Segment]
    """The network's segments, with addresses of the family."""

    @property
    def serves(self) -> bool:
        """Whether the network takes its slots."""
        return self.alike and self.known >= LEAST_COVERAGE

    def rank(self) -> tuple[float, float, str]:
        """Of those that serve, the largest is the best."""
        return self.known, self.common, self.family

    @property
    def why_not(self) -> str:
        """Of the one that knows most, why it doesn't serve, for a report."""
        nearest = f"the nearest, {self.family}, has {self.known:.0%} of its layers"
        if self.known < LEAST_COVERAGE:
            return f"{nearest}, and {LEAST_COVERAGE:.0%} are needed"
        if self.tokens:
            return f"{nearest}, but for other vocabularies than {max(self.tokens)} tokens"
        if not self.reads_input:
            return f"{nearest}, but not what reads its input"
        return f"{nearest}, which are too few of {self.family}'s"


class SlotBank(nn.Module):
    """The learned tables of all slots.

    Slots are numbered: the steps of each kind of place one after the other, from ``first`` on. ``rows`` and ``columns``
    have the two tables of each, ``share`` the logit of ρ, shape ``(slots,)``, where there are factors.
    ``gain`` has the logarithm of each slot's size beside the scale rule, shape ``(slots,)``: that of the base that it
    began as.

    Args:
        sizes: As ``slot_sizes`` gives them.
    """

    gain: Tensor

    def __init__(self, sizes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.sizes = {key: SlotSize(*values) for key, values in sizes.items()}
        self._places: dict[str, set[str]] = {}
        self._matrices: dict[str, set[str]] = {}
        """Kinds of places with matrices, without stages and sizes, by family."""
        for key, size in self.sizes.items():
            family, _, place = key.partition("/")
            self._places.setdefault(family, set()).add(place)
            kinds = self._matrices.setdefault(family, set())
            if size.rank:
                kinds.add(_matrix_kind(place))
        self.families = sorted(self._places)
        self.first: dict[str, int] = {}
        names = [(key, step) for key, size in self.sizes.items() for step in range(size.steps)]
        for number, (key, step) in enumerate(names):
            if step == 0:
                self.first[key] = number
        self.names = [f"{key}/{step}" for key, step in names]
        self.rows, self.columns = nn.ParameterList(), nn.ParameterList()
        self.share = nn.Parameter(torch.full((len(names),), math.log(START_SHARE / (1 - START_SHARE))))
        # Not learned: before a normalization a gain would only grow to drown the noise, and slow down every later step.
        self.register_buffer("gain", torch.zeros(len(names)))
        self.register_load_state_dict_pre_hook(self._without_gains)
        for number, (key, _) in enumerate(names):
            size = self.sizes[key]
            rows, columns = torch.zeros(size.rows), torch.zeros(0)
            if size.rank == DENSE:
                (rows,) = _drawn(self.names[number], (size.rows, size.columns))
            elif size.rank:
                shapes = (size.rows, size.rank), (size.columns, size.rank)
                rows, columns = _drawn(self.names[number], *shapes)
            self.rows.append(nn.Parameter(rows))
            self.columns.append(nn.Parameter(columns))

    def to_slots(self) -> dict[str, tuple[int, ...]]:
        """The sizes as ``DecoderConfig.slots`` holds them."""
        return {key: astuple(size) for key, size in self.sizes.items()}

    @staticmethod
    def _without_gains(bank: "SlotBank", state: dict[str, Tensor], prefix: str, *_: Any) -> None:
        """Tables that were saved before there were gains have none."""
        state.setdefault(f"{prefix}gain", torch.zeros(bank.gain.shape, dtype=torch.float32, device="cpu"))

    def cuts(self, graph: ComputationGraph, plans: Sequence[ParamPlan]) -> Cuts:
        """What there is for a network whose parameters are made of ``plans``."""
        candidates = self._candidates(segments(graph))
        best = _best(candidates)
        if best is None:
            nearest = max(candidates, key=lambda candidate: candidate.known, default=None)
            return Cuts({}, "nothing was learned" if nearest is None else nearest.why_not)
        family, coverage, cut = best.family, best.known, best.cut
        cut_params = {
            cut_param.plan.spec.name: cut_param
            for cut_param in self._cut_params(cut, plans, family)
            if cut_param.cuts
        }
        resizes = (own.resize for cut_param in cut_params.values() for own in cut_param.cuts if own.resize)
        notes = sorted(set().union(*(resize.notes for resize in resizes)))
        others = "".join(f", and {note}" for note in notes)
        return Cuts(cut_params, f"from {family}, which has {coverage:.0%} of its layers{others}")

    def family(self, graph: ComputationGraph) -> tuple[str, float]:
        """The family that has slots for most of a graph's segments, and for which share of them; '' if none has enough.

        It must have a slot for what reads the input: a trunk is worth nothing behind another stem. Of equal shares, the
        one with the fewest kinds of places that the graph has not.
        """
        best = _best(self._candidates(segments(graph)))
        return ("", 0.0) if best is None else (best.family, best.known)

    def _candidates(self, cut: Sequence[Segment]) -> list["_Candidate"]:
        candidates = []
        for family, own in self._places.items():
            renamed = equivalents(cut, own)
            places = [slot_key("", segment.address).removeprefix("/") for segment in renamed]
            entries = {place for place in places if " input>" in place}
            reads_input = bool(entries) and entries <= own
            candidates.append(
                _Candidate(
                    family=family,
                    known=sum(place in own for place in places) / max(len(places), 1),
                    common=len(own.intersection(places)) / len(own),
                    reads_input=reads_input,
                    tokens=frozenset(map(int, _TOKENS.findall(" ".join(entries - own)))),
                    alike=reads_input and self._share_of_matrices(family, places) >= LEAST_COMMON,
                    cut=renamed,
                )
            )
        return candidates

    def _share_of_matrices(self, family: str, places: Iterable[str]) -> float:
        """Share of a family's kinds of matrices that there are among some places; see ``LEAST_COMMON``."""
        kinds = self._matrices[family]
        return len(kinds.intersection(map(_matrix_kind, places))) / max(len(kinds), 1)

    def cut_params(self, graph: ComputationGraph, plans: Sequence[ParamPlan], family: str) -> list[CutParam]:
        """What each parameter of a graph is cut from, in the order of ``plans``."""
        return self._cut_params(segments(graph), plans, family)

    @torch.inference_mode(False)
    def _cut_params(self, cut: Sequence[Segment], plans: Sequence[ParamPlan], family: str) -> list[CutParam]:
        by_name: dict[str, list[Segment]] = {}
        for segment in cut:
            by_name.setdefault(segment.spec.name, []).append(segment)
        limits = self._limits(cut, family)
        return [self._cut_param(plan, by_name[plan.spec.name], family, limits) for plan in plans]

    def _limits(self, cut: Sequence[Segment], family: str) -> Limits:
        """How many units stand for hidden units that are more than a table has.

        The smallest table of what writes them, normalizes them and reads them decides for all: they must take the same
        unit for a copy (docs/log/slots-stages.md).
        """
        limits: dict[tuple[int, int], int] = {}
        for segment in cut:
            size = self.sizes.get(slot_key(family, segment.address))
            if size is None:
                continue
            sides = [(segment.row_tie, segment.row_units, size.row_units)]
            if size.rank:
                sides.append((segment.column_tie, segment.column_units, size.column_units))
            for tie, units, most in sides:
                width = _width(units)
                if tie >= 0 and width > most:
                    limits[tie, width] = min(most, limits.get((tie, width), most))
        return limits

    def _cut_param(self, plan: ParamPlan, own: list[Segment], family: str, limits: Limits) -> CutParam:
        keys = [slot_key(family, segment.address) for segment in own]
        if any(key not in self.sizes for key in keys):
            return CutParam(plan, ())
        ranks = {bool(self.sizes[key].rank) for key in keys}
        if plan.init.random and ranks == {False} and all(len(part.column_units) == 1 for part in own):
            plan = replace(
                plan, init=Init.vector(0.0)
            )  # of other members' vectors, which don't start at random
        if ranks != {plan.init.random}:
            return CutParam(plan, ())
        centre = plan.init.mean
        if isinstance(centre, Tensor):
            if centre.numel() < plan.spec.numel:  # decays, the same for all channels
                return CutParam(plan, ())
            centre = centre.flatten()
        cuts = [self._cut(key, segment, limits) for key, segment in zip(keys, own, strict=True)]
        known = tuple(cut for cut in cuts if cut is not None)
        return CutParam(plan, known if len(known) == len(cuts) else (), centre)

    def _cut(self, key: str, segment: Segment, limits: Limits) -> Cut | None:
        """None if what the slot has can't be brought to the segment's size."""
        size, resize = self.sizes[key], None
        if is_other_size(segment, size.row_units):
            resize = resize_of(segment, size.row_units) if size.rank == DENSE else None
            if resize is None:
                return None
        slot = self.first[key] + segment.address.depth(size.steps)
        units, height = segment.row_units, len(segment.row_units)
        if resize is not None and resize.tokens is not None:
            units = units[: resize.tokens.shape[1]]
        vector_parts = size.part_units if not size.rank else 0
        limit = limits.get((segment.row_tie, _width(units)), size.row_units)
        rows = _numbers(units, size.row_blocks, size.row_units, vector_parts, limit)
        first = bool((rows == torch.arange(len(rows))).all())
        if not size.rank:
            return Cut(slot, None if first else rows, None, height, 1, None, 1.0, segment.rows)
        units = segment.column_units
        if resize is not None and resize.points is not None:
            units = with_points(units, math.isqrt(len(resize.points)))
        if size.rank == DENSE and reads_grey(segment, size.column_units):
            resize, units = of_grey(resize, units)
        units, (y, x) = units[:, :2], units[:, 2:].unbind(1)
        reach, after = size.kernel // 2, (size.kernel - 1) // 2
        limit = limits.get((segment.column_tie, _width(units)), size.column_units)
        columns = _numbers(units, size.column_blocks, size.column_units, size.part_units, limit)
        columns = (columns * size.kernel + y.clamp(-reach, after) + reach) * size.kernel
        columns = columns + x.clamp(-reach, after) + reach
        own = torch.arange(segment.groups).repeat_interleave(len(columns) // segment.groups) * size.columns
        copies = torch.bincount(columns + own)[columns + own].float()
        distinct = len((columns + own).unique()) / len(columns)
        if segment.groups > 1:
            columns, copies = columns.view(segment.groups, -1), copies.view(segment.groups, -1)
        ordered = (
            segment.groups == 1 and resize is None and bool((columns == torch.arange(len(columns))).all())
        )
        copied = bool((copies > 1).any())
        master = None
        if size.rank != DENSE:
            master = _master(self.names[slot], size.rows, size.columns)[rows][:, columns]
            master = (master / copies / copies.pow(-2).mean().sqrt()) if copied else master.contiguous()
        return Cut(
            slot=slot,
            rows=None if first else rows,
            columns=None if ordered else columns,
            height=height,
            width=columns.shape[-1] if resize is None else len(segment.column_units),
            copy_weights=1 / copies if copied else None,
            dilution=math.sqrt(distinct),
            where=segment.rows,
            master=master,
            dense=size.rank == DENSE,
            resize=resize,
        )


def _best(candidates: Iterable[_Candidate]) -> _Candidate | None:
    return max((each for each in candidates if each.serves), key=_Candidate.rank, default=None)


def _matrix_kind(place: str) -> str:
    """A kind of place without its stage, and without the sizes of patches, maps and grids, which serve each other."""
    return _SIZED.sub(r"\1", place.partition("/")[2])


def _width(units: Tensor) -> int:
    """How many hidden units a side has, if they are one block; else 0."""
    return 0 if units[:, 0].any() else int(units[:, 1].max()) + 1


def _numbers(pairs: Tensor, blocks: int, units: int, part_units: int, limit: int) -> Tensor:
    """Rows of a table for units by block and number within it; what is beyond the table repeats what is within.

    The first block repeats after ``limit`` units, which are fewer than the table's where what else the units pass has
    no more. Parts of a concatenation behind it may be narrower than the table's blocks, and repeat within their own
    width, as what writes them does.
    """
    block, unit = pairs[:, 0] % blocks, pairs[:, 1]
    return block * units + unit % torch.where(block > 0, part_units or units, limit)


def _drawn(name: str, *shapes: tuple[int, int]) -> list[Tensor]:
    """Normal numbers of a slot's own."""
    if torch.get_default_device().type == "meta":
        return [torch.empty(shape) for shape in shapes]
    generator = keyed_generator(torch.device("cpu"), 1, name)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@lru_cache(maxsize=_CACHED_MASTERS)
def _master(name: str, rows: int, columns: int) -> Tensor:
    """The fixed matrix of a slot, of independent normal numbers."""
    with torch.inference_mode(False):
        return torch.randn(rows, columns, generator=keyed_generator(torch.device("cpu"), 0, name))


def whole_matrix(table: Tensor, cut: Cut) -> Tensor:
    """What a cut takes of a matrix that is learned itself, shape ``(height, width)``."""
    device = table.device
    block = table[: cut.taken] if cut.rows is None else table[cut.rows.to(device)]
    columns, weights = (
        None if side is None else cut.by_row(side).to(device) for side in (cut.columns, cut.copy_weights)
    )
    if columns is None:
        block = block[:, : cut.width]
    else:
        block = block[:, columns] if columns.ndim == 1 else block.gather(1, columns)
    block = block if weights is None else block * weights
    return block if cut.resize is None else cut.resize(block)
