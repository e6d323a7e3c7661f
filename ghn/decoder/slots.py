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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ghn.base.blocks import keyed_generator
from ghn.decoder.config import DENSE
from ghn.decoder.recipe import Recipe
from ghn.decoder.units import Segment, segments
from ghn.graph.addresses import Address
from ghn.graph.graph import ComputationGraph

MOST_STEPS = 6
"""Slots along the relative depth of a stage; deeper networks share theirs between neighbours."""

START_SHARE = 0.8
"""Of the low-rank part, beside the fixed matrix, before anything is learned."""

LEAST_COVERAGE = 0.6
"""Share of a network's matrices, by number, that a family must have slots for, or nothing learned is used."""

_CACHED_MASTERS = 512


@dataclass(frozen=True)
class SlotSize:
    """Largest sizes that were met at one kind of place."""

    row_blocks: int
    row_units: int
    column_blocks: int
    column_units: int
    kernel: int
    """Points along one side of the largest kernel, odd."""
    steps: int
    """Slots along the relative depth."""
    rank: int
    """Width of the tables; 0 for vectors, whose table is one column; ``DENSE`` for one whole table."""

    @property
    def rows(self) -> int:
        """Rows of the row table."""
        return self.row_blocks * self.row_units

    @property
    def columns(self) -> int:
        """Rows of the column table."""
        return self.column_blocks * self.column_units * self.kernel**2


def slot_key(family: str, address: Address) -> str:
    """Name of a kind of place; queries, keys and values that one normalization serves share its vectors."""
    kind = address.kind
    if kind.startswith(("norm_", "layer_scale")) and set(kind.rpartition(">")[2]) <= set("qkv"):
        kind = f"{kind.rpartition('>')[0]}>qkv"
    return f"{family}/{address.stage}/{kind}"


def slot_sizes(
    networks: Iterable[tuple[str, ComputationGraph, Sequence[Recipe]]], rank: int
) -> dict[str, tuple[int, ...]]:
    """Sizes of all slots that some networks need, each with its family: what ``DecoderConfig.slots`` holds.

    Args:
        networks: Family, graph, and what its parameters are made of.
        rank: Of kernels; matrices, whose tables are short, get twice as much. ``DENSE`` has no factors.
    """
    found: dict[str, list[int]] = {}
    for family, graph, made_of in networks:
        matrices = {recipe.spec.name: recipe.init.random for recipe in made_of}
        for segment in segments(graph):
            if segment.spec.name not in matrices:
                continue
            rows, columns = segment.row_units.max(0).values + 1, segment.column_units
            kernel = 2 * int(columns[:, 2:].abs().max()) + 1
            blocks, units = (columns[:, :2].max(0).values + 1).tolist()
            sizes = [*rows.tolist(), blocks, units, kernel, min(segment.address.count, MOST_STEPS)]
            key = slot_key(family, segment.address)
            sizes = [max(pair) for pair in zip(found.get(key, sizes)[: len(sizes)], sizes, strict=True)]
            wide = DENSE if rank == DENSE else rank * (1 if kernel > 1 else 2)
            columns_in_all = sizes[2] * sizes[3] * sizes[4] ** 2
            wide = min(wide, sizes[0] * sizes[1], columns_in_all) if matrices[segment.spec.name] else 0
            found[key] = [*sizes, wide]
    return {key: tuple(sizes) for key, sizes in sorted(found.items())}


@dataclass(frozen=True)
class Cut:
    """What one segment takes out of a slot."""

    slot: int
    rows: Tensor | None
    """Rows of the row table, long; None if they are the first ones in order."""
    columns: Tensor | None
    """Rows of the column table, likewise."""
    height: int
    width: int
    shares: Tensor | None
    """One over the number of copies of each column's unit; None if there is one of each."""
    dilution: float
    """Root of the share of columns whose units are no copies: what is coherent shrinks with it."""
    where: Tensor | None
    """Numbers of the segment's rows in its parameter, long; None for all."""
    master: Tensor | None = None
    """The fixed matrix, ``(height, width)``; None for vectors and where there is none."""
    dense: bool = False
    """Whether the matrix itself is learned."""


@dataclass(frozen=True)
class Part:
    """A parameter and its cuts; without any, nothing is known of it."""

    recipe: Recipe
    cuts: tuple[Cut, ...]
    centre: Tensor | float = 0.0
    """Of a vector."""


@dataclass(frozen=True)
class Cuts:
    """What slots have for a network."""

    parts: Mapping[str, Part]
    """Of the parameters that there are slots for, by name."""
    origin: str
    """Whose slots they are, or why there are none, for a report."""


class SlotBank(nn.Module):
    """The learned tables of all slots.

    ``gain`` has the logarithm of each slot's size beside the scale rule, shape ``(slots,)``: that of the base that it
    began as.

    Args:
        sizes: As ``slot_sizes`` gives them.
    """

    gain: Tensor

    def __init__(self, sizes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.sizes = {key: SlotSize(*values) for key, values in sizes.items()}
        self.families = sorted({key.partition("/")[0] for key in self.sizes})
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
            generator = keyed_generator(torch.device("cpu"), 1, self.names[number])
            if size.rank == DENSE:
                self.rows.append(nn.Parameter(torch.randn(size.rows, size.columns, generator=generator)))
                self.columns.append(nn.Parameter(torch.zeros(0)))
            elif size.rank:
                self.rows.append(nn.Parameter(torch.randn(size.rows, size.rank, generator=generator)))
                self.columns.append(nn.Parameter(torch.randn(size.columns, size.rank, generator=generator)))
            else:
                self.rows.append(nn.Parameter(torch.zeros(size.rows)))
                self.columns.append(nn.Parameter(torch.zeros(0)))

    def to_slots(self) -> dict[str, tuple[int, ...]]:
        """The sizes as ``DecoderConfig.slots`` holds them."""
        return {key: astuple(size) for key, size in self.sizes.items()}

    @staticmethod
    def _without_gains(bank: "SlotBank", state: dict[str, Tensor], prefix: str, *_: Any) -> None:
        """Tables that were saved before there were gains have none."""
        state.setdefault(f"{prefix}gain", torch.zeros_like(bank.gain))

    def cuts(self, graph: ComputationGraph, made_of: Sequence[Recipe]) -> Cuts:
        """What there is for a network whose parameters are made of ``made_of``."""
        family, coverage = self.family(graph)
        if not family:
            needed = f"{LEAST_COVERAGE:.0%} and what reads the input are needed"
            return Cuts(
                {}, f"no family that was learned has its layers: the nearest {coverage:.0%}, {needed}"
            )
        parts = {part.recipe.spec.name: part for part in self.parts(graph, made_of, family) if part.cuts}
        return Cuts(parts, f"from {family}, which has {coverage:.0%} of its layers")

    def family(self, graph: ComputationGraph) -> tuple[str, float]:
        """The family that has slots for most of a graph's segments, and for which share of them; '' if none has enough.

        It must have a slot for what reads the input: a trunk is worth nothing behind another stem. Of equal shares, the
        one with the fewest kinds of places that the graph has not.
        """
        keys = [slot_key("", segment.address) for segment in segments(graph)]
        if not keys or not self.families:
            return "", 0.0
        entries = {key for key in keys if " input>" in key}
        found = []
        for family in self.families:
            own = {key.removeprefix(family) for key in self.sizes if key.startswith(f"{family}/")}
            known = sum(key in own for key in keys) / len(keys) if entries <= own else 0.0
            found.append((known, len(own.intersection(keys)) / len(own), family))
        known, _, best = max(found)
        return (best if known >= LEAST_COVERAGE else "", known)

    @torch.inference_mode(False)
    def parts(self, graph: ComputationGraph, made_of: Sequence[Recipe], family: str) -> list[Part]:
        """What each parameter of a graph is cut from, in the order of ``made_of``."""
        by_name: dict[str, list[Segment]] = {}
        for segment in segments(graph):
            by_name.setdefault(segment.spec.name, []).append(segment)
        return [self._part(recipe, by_name[recipe.spec.name], family) for recipe in made_of]

    def _part(self, recipe: Recipe, own: list[Segment], family: str) -> Part:
        keys = [slot_key(family, segment.address) for segment in own]
        random = recipe.init.random
        if any(key not in self.sizes or bool(self.sizes[key].rank) != random for key in keys):
            return Part(recipe, ())
        centre = recipe.init.mean
        if isinstance(centre, Tensor):
            if centre.numel() < recipe.spec.numel:  # decays, the same for all channels
                return Part(recipe, ())
            centre = centre.flatten()
        return Part(
            recipe, tuple(self._cut(key, segment) for key, segment in zip(keys, own, strict=True)), centre
        )

    def _cut(self, key: str, segment: Segment) -> Cut:
        size = self.sizes[key]
        slot = self.first[key] + segment.address.depth(size.steps)
        units = segment.row_units
        rows = (units[:, 0] % size.row_blocks) * size.row_units + units[:, 1] % size.row_units
        first = bool((rows == torch.arange(len(rows))).all())
        if not size.rank:
            return Cut(slot, None if first else rows, None, len(rows), 1, None, 1.0, segment.rows)
        block, unit, y, x = segment.column_units.unbind(1)
        reach = size.kernel // 2
        columns = (block % size.column_blocks) * size.column_units + unit % size.column_units
        columns = (columns * size.kernel + y.clamp(-reach, reach) + reach) * size.kernel
        columns = columns + x.clamp(-reach, reach) + reach
        copies = torch.bincount(columns, minlength=size.columns)[columns].float()
        ordered = bool((columns == torch.arange(len(columns))).all())
        shared = bool((copies > 1).any())
        master = None
        if size.rank != DENSE:
            master = _master(self.names[slot], size.rows, size.columns)[rows][:, columns]
            master = (master / copies / copies.pow(-2).mean().sqrt()) if shared else master.contiguous()
        return Cut(
            slot=slot,
            rows=None if first else rows,
            columns=None if ordered else columns,
            height=len(rows),
            width=len(columns),
            shares=1 / copies if shared else None,
            dilution=math.sqrt(len(columns.unique()) / len(columns)),
            where=segment.rows,
            master=master,
            dense=size.rank == DENSE,
        )


@lru_cache(maxsize=_CACHED_MASTERS)
def _master(name: str, rows: int, columns: int) -> Tensor:
    """The fixed matrix of a slot, of independent normal numbers."""
    with torch.inference_mode(False):
        return torch.randn(rows, columns, generator=keyed_generator(torch.device("cpu"), 0, name))


FRESH = 0.15
"""Share of every learned matrix that is drawn anew for each seed, as a standard deviation: seeds differ by it."""

COHERENT = math.sqrt(1 - FRESH**2)
"""What is left for the slot's part."""


@dataclass(frozen=True)
class Made:
    """What making one cut has left for the backward pass."""

    part: Part
    cut: Cut
    left: Tensor | None = None
    right: Tensor | None = None
    left_gram: Tensor | None = None
    right_gram: Tensor | None = None
    inverse_norm: float = 0.0
    share: float = 0.0
    size: float = 0.0
    """Of the slot's part within the parameter: spread times coherent share."""


class Noise:
    """A stock of normal numbers of which slices are taken: targets of meta-training need no independent ones."""

    def __init__(self, generator: torch.Generator, size: int = 2**22) -> None:
        self._stock = torch.randn(size, generator=generator)
        self.generator = generator
        """Draws where slices begin."""

    def add_(self, values: Tensor, size: float) -> None:
        """Add noise of a standard deviation to a contiguous tensor."""
        flat = values.view(-1)
        start = int(torch.randint(len(self._stock), (), generator=self.generator))
        done = 0
        while done < len(flat):
            count = min(len(flat) - done, len(self._stock) - start)
            flat[done : done + count].add_(self._stock[start : start + count], alpha=size)
            done, start = done + count, 0


@torch.no_grad()
def make(bank: SlotBank, parts: Sequence[Part], noise: Noise | None) -> tuple[dict[str, Tensor], list[Made]]:
    """Make all parameters of a network that have cuts, for meta-training: no gradient is recorded.

    Args:
        bank: The tables.
        parts: As ``SlotBank.parts`` gives them.
        noise: Fresh numbers, instead of a base; None for none.

    Returns:
        Tensors by name, and what ``accumulate`` needs.
    """
    shares = torch.sigmoid(bank.share).tolist()
    gains = bank.gain.exp().tolist()
    values: dict[str, Tensor] = {}
    saved: list[Made] = []
    for part in parts:
        if not part.cuts:
            continue
        made = []
        for cut in part.cuts:
            if cut.dense:
                matrix = whole_matrix(bank.rows[cut.slot].detach(), cut)
                inverse = 1 / math.sqrt(max(float(matrix.square().mean()), 1e-30))
                coherent = COHERENT * cut.dilution
                size = part.recipe.init.std * coherent * gains[cut.slot]
                made.append(matrix * (size * inverse))
                saved.append(Made(part, cut, matrix, inverse_norm=inverse, size=size))
                if noise is not None:
                    noise.add_(made[-1], part.recipe.init.std * FRESH)
                continue
            if cut.master is None:
                offsets = _taken(bank.rows[cut.slot], cut.rows, cut.height)
                saved.append(Made(part, cut))
                made.append(_moved(part, offsets, cut.where))
                continue
            left = _taken(bank.rows[cut.slot], cut.rows, cut.height)
            right = _taken(bank.columns[cut.slot], cut.columns, cut.width)
            if cut.shares is not None:
                right = right * cut.shares[:, None]
            left_gram, right_gram = left.mT @ left, right.mT @ right
            mean_square = float((left_gram * right_gram).sum()) / (cut.height * cut.width)
            inverse = 1 / math.sqrt(max(mean_square, 1e-30))
            share, coherent = shares[cut.slot], COHERENT * cut.dilution
            size = part.recipe.init.std * coherent * gains[cut.slot]
            matrix = torch.addmm(
                cut.master, left, right.mT, beta=size * math.sqrt(1 - share**2), alpha=size * share * inverse
            )
            if noise is not None:
                noise.add_(matrix, part.recipe.init.std * FRESH)
            saved.append(Made(part, cut, left, right, left_gram, right_gram, inverse, share, size))
            made.append(matrix)
        whole = _together(part, made)
        if part.recipe.init.random and part.cuts[0].width > 1:  # a line is in order as it is
            whole = part.recipe.layout.restore(whole)
        values[part.recipe.spec.name] = whole.reshape(part.recipe.spec.shape)
    return values, saved


@torch.no_grad()
def accumulate(bank: SlotBank, saved: Sequence[Made], gradients: Mapping[str, Tensor], weight: float) -> None:
    """Add the gradient of a loss, by its gradients of the parameters made, to that of the tables.

    Args:
        bank: The tables; those without a gradient yet get one.
        saved: From ``make``.
        gradients: Of the parameters, by name; some may be missing.
        weight: Factor on all of them.
    """
    if bank.share.grad is None:
        bank.share.grad = torch.zeros_like(bank.share)
    matrices: dict[str, Tensor] = {}
    for made in saved:
        cut, recipe = made.cut, made.part.recipe
        if recipe.spec.name not in gradients:
            continue
        if cut.master is None and not cut.dense:
            gradient = gradients[recipe.spec.name].reshape(-1)
            gradient = gradient if cut.where is None else gradient[cut.where]
            centre = made.part.centre
            factor = weight * centre if not isinstance(centre, Tensor) and centre else weight
            _scatter(bank.rows[cut.slot], cut.rows, gradient * factor)
            continue
        if recipe.spec.name not in matrices:
            matrices[recipe.spec.name] = (
                as_matrix(recipe, gradients[recipe.spec.name])
                if cut.width > 1
                else gradients[recipe.spec.name].reshape(-1, 1)
            )
        gradient = matrices[recipe.spec.name]
        gradient = gradient if cut.where is None else gradient[cut.where]
        assert made.left is not None
        if cut.dense:
            along = float((gradient * made.left).sum()) * made.inverse_norm**2 / (cut.height * cut.width)
            gradient = (gradient - along * made.left).mul_(weight * made.size * made.inverse_norm)
            _scatter_dense(bank.rows[cut.slot], cut, gradient)
            continue
        assert made.right is not None and cut.master is not None
        assert made.left_gram is not None and made.right_gram is not None
        by_left, by_right = gradient @ made.right, gradient.mT @ made.left
        along = float((by_left * made.left).sum())
        correction = along * made.inverse_norm**2 / (cut.height * cut.width)
        scale = weight * made.size * made.share * made.inverse_norm
        _scatter(
            bank.rows[cut.slot], cut.rows, (by_left - correction * (made.left @ made.right_gram)).mul_(scale)
        )
        right = (by_right - correction * (made.right @ made.left_gram)).mul_(scale)
        if cut.shares is not None:
            right = right * cut.shares[:, None]
        _scatter(bank.columns[cut.slot], cut.columns, right)
        kept = math.sqrt(1 - made.share**2)
        across = float((gradient * cut.master).sum())
        slope = made.inverse_norm * along - made.share / kept * across
        bank.share.grad[cut.slot] += weight * made.size * slope * made.share * (1 - made.share)


def _taken(table: Tensor, rows: Tensor | None, count: int) -> Tensor:
    return table.detach()[:count] if rows is None else table.detach()[rows]


def whole_matrix(table: Tensor, cut: Cut) -> Tensor:
    """What a cut takes of a matrix that is learned itself, shape ``(height, width)``."""
    device = table.device
    block = table[: cut.height] if cut.rows is None else table[cut.rows.to(device)]
    block = block[:, : cut.width] if cut.columns is None else block[:, cut.columns.to(device)]
    return block if cut.shares is None else block * cut.shares.to(device)


def _scatter_dense(table: nn.Parameter, cut: Cut, gradient: Tensor) -> None:
    if table.grad is None:
        table.grad = torch.zeros_like(table)
    if cut.shares is not None:
        gradient = gradient * cut.shares
    if cut.columns is not None:
        whole = gradient.new_zeros(cut.height, table.shape[1])
        gradient = whole.index_add_(1, cut.columns, gradient)
    if cut.rows is None:
        table.grad[: cut.height, : gradient.shape[1]] += gradient
    else:
        table.grad[:, : gradient.shape[1]].index_add_(0, cut.rows, gradient)


def _scatter(table: nn.Parameter, rows: Tensor | None, gradient: Tensor) -> None:
    if table.grad is None:
        table.grad = torch.zeros_like(table)
    if rows is None:
        table.grad[: len(gradient)] += gradient
    else:
        table.grad.index_add_(0, rows, gradient)


def _moved(part: Part, offsets: Tensor, where: Tensor | None) -> Tensor:
    """A vector: its centre, moved in proportion where that is a number other than zero."""
    centre = part.centre
    if isinstance(centre, Tensor):
        return (centre if where is None else centre[where]) + offsets
    return centre * (1 + offsets) if centre else offsets


def _together(part: Part, made: list[Tensor]) -> Tensor:
    """The segments of a parameter, rows in order."""
    if len(made) == 1 and part.cuts[0].where is None:
        return made[0]
    where = torch.cat([cut.where for cut in part.cuts if cut.where is not None])
    whole = made[0].new_empty(len(where), *made[0].shape[1:])
    return whole.index_copy_(0, where, torch.cat(made))


def as_matrix(recipe: Recipe, values: Tensor) -> Tensor:
    """A parameter in the shape of its layout: the inverse of ``Layout.restore``."""
    layout = recipe.layout
    return values.permute(layout.permutation).reshape(layout.rows, layout.columns)
