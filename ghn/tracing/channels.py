"""Which channels of which weights each head of an attention reads: views replayed on a tensor of channel numbers."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ghn.graph.ops import ELEMENTWISE, NORMS
from ghn.tracing.recorder import Operand, RawNode
from ghn.tracing.roles import RoleFinder

PASSES = ELEMENTWISE | NORMS | {"rope"}
"""Kinds that leave every channel where it is (rotations mix two of one head: the first is followed)."""

CASTS = frozenset(
    "to _to_copy type_as float half bfloat16 double contiguous detach alias lift lift_fresh data "
    "_autocast_to_reduced_precision _autocast_to_full_precision".split()
)
"""Moves that leave every value where it is; replayed, a narrow type would round channel numbers."""

MAX_STEPS = 24
"""Operations between a linear map and the attention that reads it."""

MAX_NUMEL = 2**24
"""Results larger than this are not followed."""


class Products(NamedTuple):
    """The operations of one attention in a record: the same one, or the products before and after a softmax."""

    scores: int
    output: int


class Trail(NamedTuple):
    """A result whose entries are known to be channels of one earlier operation."""

    origin: int
    channels: Tensor
    """Channel numbers, of the result's shape; half a number more where the sign was changed."""
    partners: Tensor | None = None
    """Numbers of the channels that entries were rotated with (their own where they were not), of the same shape."""

    @property
    def kinds(self) -> list[Tensor]:
        """The numbers: of channels, and of partners where there are any."""
        return [self.channels] if self.partners is None else [self.channels, self.partners]


class Weight(NamedTuple):
    """What a linear map reads of a parameter."""

    parameter: int
    """Parameter number."""
    first: int
    """Which of the parameter's rows (outputs, whatever its axes) makes the map's first output."""


class Rows(NamedTuple):
    """Outputs of a linear map that an attention reads, by head."""

    weight: int
    """Parameter number."""
    channels: Tensor
    """Numbers of the outputs, shape ``(heads, width)``."""
    partners: Tensor
    """Numbers of the outputs that they are rotated with, or they themselves; shape ``(heads, width)``."""
    negative: Tensor
    """Whether the partners are subtracted; shape ``(heads, width)``."""


class ChannelFinder:
    """Reads heads and their channels off a record."""

    def __init__(self, nodes: list[RawNode], finder: RoleFinder) -> None:
        self.nodes = nodes
        self.finder = finder
        self._memo: dict[tuple[int, int], Trail | None] = {}

    def facts(self, attention: Products) -> dict[str, float | tuple[int, ...]]:
        """Attributes of an attention node: heads, width, and where query, key, value and projection come from.

        ``query``, ``key`` and ``value`` are ``(parameter, offset, group, head_stride, stride)``: channel ``j`` of head
        ``h`` is output ``offset + h // group * head_stride + j * stride`` of that parameter's linear map.
        ``projection`` is ``(parameter,)`` if a linear map reads the heads' channels one after the other. What doesn't
        come in such a form is absent.

        ``causal`` is 1 if a mask hides later tokens, and those alone. ``rotary`` is ``(offset, stride, gap, pairs)`` if
        rotary embeddings turn channel ``offset + i * stride`` of every head's query and key together with the one
        ``gap`` further (or before, if ``gap`` is negative), as a complex number is turned by a positive angle at later
        positions, for each of so many pairs.
        """
        scores, output = self.nodes[attention.scores], self.nodes[attention.output]
        fused = attention.scores == attention.output
        by_slot = sorted(range(len(scores.inputs)), key=lambda position: scores.inputs[position][1])
        last = max(range(len(output.inputs)), key=lambda position: output.inputs[position][1])
        operands = (
            [(scores, position) for position in by_slot[:3]]
            if fused
            else [*((scores, position) for position in by_slot[-2:]), (output, last)]
        )
        if len(operands) < 3:
            return {}
        result: dict[str, float | tuple[int, ...]] = {}
        heads = width = 0
        turns: dict[str, tuple[int, ...] | None] = {}
        for name, (node, position) in zip(("query", "key", "value"), operands, strict=True):
            rows = self._rows(*_read(node, position), transposed=name == "key" and not fused)
            if rows is not None and name == "query":
                heads, width = rows.channels.shape
            if heads == 0:
                return {}
            if rows is not None and heads % len(rows.channels) == 0:
                # A head of keys and values serves neighbouring heads of queries.
                form = _affine(rows.channels.repeat_interleave(heads // len(rows.channels), dim=0))
                if form is not None:
                    result[name] = (rows.weight, *form)
                    turns[name] = _turns(rows)
        rotary = turns.get("query")
        if rotary and rotary == turns.get("key"):
            result["rotary"] = rotary
        if self._is_causal(attention):
            result["causal"] = 1
        projection = self._projection(attention.output, heads)
        if projection is not None:
            result["projection"] = (projection,)
        return {"heads": heads, "width": width, **result}

    def _is_causal(self, attention: Products) -> bool:
        """Whether a mask that hides later tokens alone acts between the scores and their softmax."""
        frontier = [attention.scores]
        for _ in range(MAX_STEPS):
            if any(self.nodes[index].causal for index in frontier):
                return True
            readers = {reader for index in frontier for reader, _ in self.finder.readers[index]}
            frontier = [
                reader
                for reader in readers
                if reader < attention.output and self.nodes[reader].kind != "softmax"
            ]
        return False

    def _rows(self, index: int, output: int, transposed: bool) -> Rows | None:
        """The linear map a result comes from, and its outputs by head."""
        trail = self._follow(index, output, MAX_STEPS)
        weight = None if trail is None else self._weight(trail.origin)
        if trail is None or weight is None:
            return None
        by_head = [_heads(numbers.mT if transposed else numbers) for numbers in trail.kinds]
        own, others = by_head[0], by_head[-1]
        if own is None or others is None or own.shape != others.shape:
            return None
        channels, partners = ((numbers + weight.first).long() for numbers in (own, others))
        return Rows(weight.parameter, channels, partners, _negative(own) != _negative(others))

    def _follow(self, index: int, output: int, steps: int) -> Trail | None:
        key = (index, output)
        if key not in self._memo:
            self._memo[key] = self._evaluate(index, output, steps)
        return self._memo[key]

    def _evaluate(self, index: int, output: int, steps: int) -> Trail | None:
        node = self.nodes[index]
        size = math.prod(node.shape)
        if self.finder.constant[index] or not node.inputs or steps == 0 or size > MAX_NUMEL:
            return None
        if self._weight(index) is not None:
            return Trail(index, _channel_numbers(node.kind, node.shape))
        reads = [_read(node, position) for position in range(len(node.inputs))]
        if node.call is not None and not _stays(node):
            operands = [self._follow(*read, steps - 1) for read in reads]
            return _replay(node, [entry for entry in operands if entry is not None], output)
        if _stays(node):
            operands = [self._follow(*read, steps - 1) for read in reads]
            same = [
                entry for entry in operands if entry is not None and tuple(entry.channels.shape) == node.shape
            ]
            if not same:
                return None
            first = same[0]
            if len(same) == 2 and node.kind in ("add", "sub") and first.origin == same[1].origin:
                partners = same[1].channels
                return first._replace(partners=_negate(partners) if node.kind == "sub" else partners)
            if node.kind == "mul" and first.channels.is_complex():
                real, imaginary = first.channels.real, first.channels.imag
                turn = (imaginary, _negate(real)) if node.negative else (_negate(imaginary), real)
                return first._replace(partners=torch.complex(*turn))
            if node.kind == "neg" or node.negative:
                return first._replace(channels=_negate(first.channels))
            return first
        return None

    def _weight(self, index: int) -> Weight | None:
        """The rows of a parameter that a linear map (or convolution of single positions) reads."""
        node = self.nodes[index]
        if node.kind not in ("linear", "matmul", "conv") or not node.shape:
            return None
        constants = [
            (slot, number)
            for number, (source, slot) in enumerate(node.inputs)
            if self.finder.constant[source]
        ]
        matrices = [
            (slot, number) for slot, number in constants if len(self.nodes[node.inputs[number][0]].shape) > 1
        ]
        if len(matrices) != 1 or (node.kind == "matmul" and matrices[0][0] == 0):
            return None
        if node.arguments.get("groups", 1) != 1:
            return None
        origin = self._view(*_read(node, matrices[0][1]))
        if origin is None:
            return None
        parameter, view = origin
        outputs_first = node.kind == "conv" or node.operation == "linear"
        while view.dim() > 2:  # a kernel of one point, or the same matrix for a whole batch
            axis = -1 if node.kind == "conv" else 0
            if view.shape[axis] > 1 and view.stride(axis) > 0:
                return None
            view = view.select(axis, 0)
        first = _first_row(view if outputs_first else view.mT, math.prod(self.nodes[parameter].shape))
        number = self.nodes[parameter].parameter
        return None if first is None or number is None else Weight(number, first)

    def _view(self, index: int, output: int) -> tuple[int, Tensor] | None:
        """The parameter that a result is a view of, by its node, and that view on the meta device."""
        node = self.nodes[index]
        if node.parameter is not None:
            return index, torch.empty(node.shape, device="meta")
        if len(node.inputs) != 1:
            return None
        origin = self._view(*_read(node, 0))
        if origin is None or node.operation in CASTS:
            return origin
        if node.call is None:
            return None
        parameter, view = origin
        result = _run(node, [view], output)
        if result is None or result.untyped_storage()._cdata != view.untyped_storage()._cdata:
            return None  # a copy, which may hold other values than the parameter
        return parameter, result

    def _projection(self, attention: int, heads: int) -> int | None:
        """Parameter number of the linear map that reads the channels of all heads in their order."""
        shape = self.nodes[attention].shape
        if len(shape) < 3 or shape[-3] % heads:
            return None
        width = shape[-1]
        lead = torch.arange(shape[-3], dtype=torch.float)[:, None, None] % heads * width
        frontier = {
            attention: Trail(attention, (lead + torch.arange(width, dtype=torch.float)).expand(shape))
        }
        for _ in range(MAX_STEPS):
            trails: dict[int, Trail] = {}
            for source, trail in frontier.items():
                for reader, _ in self.finder.readers[source]:
                    node = self.nodes[reader]
                    weight = self._weight(reader)
                    if weight is not None:
                        order = _channel_numbers(node.kind, trail.channels.shape)
                        return weight.parameter if bool((trail.channels == order).all()) else None
                    if node.call is not None and not _stays(node):
                        step = _replay(node, [trail], 0)
                    else:
                        step = trail if _stays(node) and node.shape == tuple(trail.channels.shape) else None
                    if step is not None:
                        trails[reader] = step
            frontier = trails
        return None


def _channel_numbers(kind: str, shape: Sequence[int]) -> Tensor:
    """Channel numbers of a linear map's operand or result (along its last axis) or a convolution's (its second)."""
    axis = 1 if kind == "conv" else len(shape) - 1
    numbers = torch.arange(shape[axis], dtype=torch.float)
    return numbers.reshape(-1, *(1 for _ in shape[axis + 1 :])).expand(*shape)


def _read(node: RawNode, position: int) -> tuple[int, int]:
    return node.inputs[position][0], node.outputs[position]


def _first_row(matrix: Tensor, numel: int) -> int | None:
    """Which row of a whole parameter, stored row by row or column by column, is the first of a view ``(out, in)``."""
    inputs, start = matrix.shape[1], int(matrix.storage_offset())
    if inputs < 2 or numel % inputs:
        return None
    if matrix.stride() == (inputs, 1):
        return start // inputs if start % inputs == 0 else None
    return start if matrix.stride() == (1, numel // inputs) else None


def _stays(node: RawNode) -> bool:
    # What is concatenated alone is put into an empty cache.
    alone = node.kind == "concat" and len(node.inputs) == 1
    return alone or node.kind in PASSES or node.operation in CASTS


def _replay(node: RawNode, operands: list[Trail], output: int) -> Trail | None:
    """Run a view (or a concatenation) on channel numbers; None if not all of its operands have one origin."""
    if len(operands) != len(node.inputs) or len({trail.origin for trail in operands}) != 1:
        return None
    operands = [operands[0], *(_apart(entry, operands[0]) for entry in operands[1:])]
    kinds = max(len(operand.kinds) for operand in operands)
    results = [
        _run(node, [operand.kinds[:kind][-1] for operand in operands], output) for kind in range(1, kinds + 1)
    ]
    complete = [numbers for numbers in results if numbers is not None]
    return Trail(operands[0].origin, *complete) if len(complete) == kinds else None


def _run(node: RawNode, operands: list[Tensor], output: int) -> Tensor | None:
    """One result of a recorded call on other operands; None if they can't take it."""
    assert node.call is not None
    function, args, kwargs = node.call
    # Numbers repeat along all axes but one, so what is a view of the real tensor may be a copy of them.
    function = torch.ops.aten.reshape.default if node.operation in ("view", "_unsafe_view") else function
    try:
        result = function(*_place(args, operands), **_place(kwargs, operands))
    except (RuntimeError, TypeError, IndexError, NotImplementedError):
        return None  # a conversion or view that numbers can't take
    results = [result] if isinstance(result, Tensor) else list(result)
    return results[output] if output < len(results) else None


def _apart(entry: Trail, first: Trail) -> Trail:
    """In a sum of two channels either may come first; if a part before this one has the same, this is the other's."""
    same = entry.channels.shape == first.channels.shape and torch.equal(
        entry.channels.floor(), first.channels.floor()
    )
    if entry.partners is None or not same:
        return entry
    return entry._replace(channels=entry.partners, partners=entry.channels)


def _place(arguments: Any, numbers: list[Tensor]) -> Any:
    return tree_map_only(Operand, lambda operand: numbers[operand.position], arguments)


def _heads(channels: Tensor) -> Tensor | None:
    """Channel numbers by head, shape ``(heads, width)``, of an operand ``(..., heads, tokens, width)``.

    None if they differ from token to token: then it's not tokens that attend.
    """
    if channels.dim() < 3:
        return None
    while channels.dim() > 3 and 0 in (
        channels.stride(0),
        channels.shape[0] - 1,
    ):  # equal for the whole batch
        channels = channels[0]
    if channels.stride(-2) and not bool((channels == channels[..., :1, :]).all()):
        return None
    rows = channels[..., 0, :].reshape(-1, channels.shape[-1])
    for heads in _divisors(len(rows)):
        if bool((rows.reshape(-1, heads, rows.shape[-1]) == rows[:heads]).all()):
            return rows[:heads]
    return None


def _turns(rows: Rows) -> tuple[int, int, int, int] | None:
    """``(offset, stride, gap, pairs)`` of the channels that are rotated in pairs, if every head's have that form."""
    place = {channel: position for position, channel in enumerate(rows.channels[0].tolist())}
    partners = [place.get(channel, -1) for channel in rows.partners[0].tolist()]
    first = [position for position, partner in enumerate(partners) if partner > position]
    if not first or not torch.equal(rows.channels[:, partners], rows.partners):
        return None
    second = [partners[position] for position in first]
    offset, pairs = first[0], len(first)
    stride, gap = first[1] - offset if pairs > 1 else 1, second[0] - offset
    regular = all(
        position == offset + number * stride and partners[position] == position + gap
        for number, position in enumerate(first)
    )
    if not regular:
        return None
    if rows.negative[:, first].all() and not rows.negative[:, second].any():
        return offset, stride, gap, pairs
    if rows.negative[:, second].all() and not rows.negative[:, first].any():
        return offset + gap, stride, -gap, pairs
    return None


def _negate(numbers: Tensor) -> Tensor:
    return torch.where(_negative(numbers), numbers - 0.5, numbers + 0.5)


def _negative(numbers: Tensor) -> Tensor:
    return numbers % 1 > 0


def _divisors(number: int) -> Iterator[int]:
    return (divisor for divisor in range(1, number + 1) if number % divisor == 0)


def _affine(rows: Tensor) -> tuple[int, int, int, int] | None:
    """``(offset, group, head_stride, stride)`` of channel numbers ``(heads, width)``, if they have that form."""
    heads, width = rows.shape
    offset = int(rows[0, 0])
    stride = int(rows[0, 1]) - offset if width > 1 else 1
    group = int((rows[:, 0] == offset).int().cumprod(0).sum())
    head_stride = int(rows[group, 0]) - offset if group < heads else 0
    expected = offset + torch.arange(heads)[:, None] // group * head_stride + torch.arange(width) * stride
    return (offset, group, head_stride, stride) if torch.equal(expected, rows) else None
