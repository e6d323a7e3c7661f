"""Parameters in slices of rows: bounded memory, whatever their size."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from ghn.base.blocks import Block, Grid
from ghn.base.sampling import RandomBlock
from ghn.decoder.cache import DecodeCache
from ghn.decoder.learned import LowRankUpdate
from ghn.decoder.plan import ParamPlan
from ghn.graph.graph import ParamSpec
from ghn.settings import own_settings

MEMORY = 2**28
"""Bytes that decoding takes at most beside its results, roughly, unless told otherwise."""

Range = tuple[int, int]
Wanted = Callable[[ParamSpec, Grid], Range]
"""Which rows of a parameter (as ``ParamSlice.start`` counts them) are needed, as (start, stop)."""


@dataclass(frozen=True)
class ParamSlice:
    """Some rows of one parameter, made when asked for."""

    spec: ParamSpec
    start: int
    """First row, of the parameter in its memory order seen as rows of ``columns`` entries."""
    rows: int
    columns: int
    make: Callable[[Tensor | None], Tensor]
    """Returns the values, float32, shape ``(rows, columns)``; written into the contiguous tensor passed, if any."""


@dataclass(frozen=True)
class BoundParam:
    """A parameter, and the scalars by which what it is made of enters."""

    plan: ParamPlan
    gain: Tensor
    """On the mean, of a parameter without a base."""
    base: Tensor
    product: Tensor
    """On the learned part, where there is one."""


def collect(specs: Iterable[ParamSpec], slices: Iterable[ParamSlice]) -> dict[str, Tensor]:
    """Make all slices and put each parameter together, in the order of ``specs``."""
    parts: dict[str, list[Tensor]] = {}
    with own_settings():
        for entry in slices:
            parts.setdefault(entry.spec.name, []).append(entry.make(None))
    return {spec.name: _whole(parts[spec.name]).reshape(spec.shape) for spec in specs if spec.name in parts}


class Addend(Protocol):
    """Something of which any rows of a block can be added to a base."""

    def add(self, values: Tensor, block: Block, band: int, first: int) -> Tensor:
        """As ``LowRankUpdate.add``."""


def random_slices(
    part: BoundParam,
    learned: Addend | None,
    seed: int,
    memory: int,
    wanted: Wanted | None,
    cache: DecodeCache,
) -> Iterator[ParamSlice]:
    """The slices of a parameter with a base, to which what is learned is added; see ``Decoder.stream``."""
    plan, device = part.plan, part.base.device
    grid = plan.memory_layout.grid
    products: list[Addend] = []
    if plan.init.pattern is not None:
        left, right = (side.to(device) for side in plan.init.pattern.factors(seed))
        products.append(LowRankUpdate(left * part.base, right, plan.layout, plan.memory_layout))
    if learned is not None:
        products.append(learned)
    begin, end = (0, grid.height) if wanted is None else wanted(plan.spec, grid)
    for block in plan.blocks:
        if block.start >= end or block.start + block.height <= begin:
            continue
        numbers = cache.block(plan, seed, block, device, memory)
        first = max(0, begin - block.start) // numbers.band
        last = min(numbers.bands, -(-(end - block.start) // numbers.band))
        step = max(1, memory // 16 // (4 * numbers.band * block.columns))
        for band in range(first, last, step):
            yield _slice(plan, numbers, (band, min(band + step, last)), part.base, products)


def _slice(
    plan: ParamPlan, numbers: RandomBlock, bands: Range, base: Tensor, products: Sequence[Addend]
) -> ParamSlice:
    block, (first, last) = numbers.block, bands
    start, stop = first * numbers.band, min(last * numbers.band, block.height)

    def make(out: Tensor | None) -> Tensor:
        values = numbers.make(first, last, base, out)
        for product in products:
            values = product.add(values, block, numbers.band, first)
        row = plan.init.padding_row
        padding = -1 if row is None else row - block.start - start
        if 0 <= padding < stop - start:
            values = values.index_fill(0, torch.tensor([padding], device=values.device), 0.0)
        return values if out is None or values.data_ptr() == out.data_ptr() else out.copy_(values)

    return ParamSlice(plan.spec, block.start + start, stop - start, block.columns, make)


def constant_slices(
    group: Sequence[BoundParam], factors: Mapping[int, tuple[Tensor, Tensor]]
) -> Iterator[ParamSlice]:
    """Whole parameters of one geometry without a base (biases, norms), which one product makes all of."""
    # In as few operations as can be: on a GPU each takes as long as the numbers of a small network.
    gains = torch.stack([part.gain for part in group])
    means = [part.plan.init.mean for part in group]
    numbers = gains.new_tensor([0.0 if isinstance(mean, Tensor) else mean for mean in means])
    batch = gains * numbers
    if learned := group[0].plan.number in factors:
        left, right = (
            torch.stack(side) for side in zip(*(factors[part.plan.number] for part in group), strict=True)
        )
        sizes = torch.stack([part.product for part in group])
        batch = batch[:, None, None] + (left * sizes[:, None, None]) @ right.mT
    for part, mean, entries in zip(group, means, batch.unbind(), strict=True):
        plan = part.plan
        grid = plan.memory_layout.grid
        values = plan.layout.restore(entries) if learned else entries.expand(plan.spec.shape)
        if isinstance(mean, Tensor):
            values = values + part.gain * mean.to(part.gain.device)
        values = values.reshape(grid.height, grid.columns)
        yield ParamSlice(plan.spec, 0, grid.height, grid.columns, partial(_give, values))


def _whole(parts: list[Tensor]) -> Tensor:
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)


def _give(values: Tensor, out: Tensor | None) -> Tensor:
    return values if out is None else out.copy_(values)


def by_geometry(parts: Iterable[BoundParam]) -> Iterable[list[BoundParam]]:
    """Parameters of equal geometry together."""
    groups: dict[object, list[BoundParam]] = {}
    for part in parts:
        groups.setdefault(part.plan.geometry, []).append(part)
    return groups.values()
