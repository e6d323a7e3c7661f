"""Which hidden unit each row and column of a parameter belongs to: equal units of different networks share weights.

A unit has two coordinates on a side: a block (a group of a convolution, a head, a part of a concatenation) and its
number within the block. Columns of kernels have two more, counted from the kernel's centre.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ghn.graph.addresses import MOST_STEPS, Address, addresses, is_depthwise, is_grouped
from ghn.graph.graph import ComputationGraph, ParamSpec
from ghn.graph.layout import Layout
from ghn.graph.ops import MIXING_ROLES
from ghn.graph.structure import HeadChannels

PARTS = ("q", "k", "v")
"""What an attention reads: queries, keys and values."""


@dataclass(frozen=True)
class Segment:
    """Rows of a parameter that share an address, as a matrix (or of a vector, which has one column)."""

    spec: ParamSpec
    address: Address
    rows: Tensor | None
    """Numbers of the rows in the parameter's ``Layout``, long; None is all of them."""
    row_units: Tensor
    """Block and unit of each row, long, shape ``(rows, 2)``."""
    column_units: Tensor
    """Block, unit, and place in the kernel of each column, long, shape ``(columns, 4)``."""
    joined: bool = False
    """Whether the blocks of its columns (of a vector: of its rows) are the parts of a concatenation."""
    row_tie: int = -1
    """A number for the hidden units of the rows, the same wherever in a network they are the same, such as the channels
    of a residual stream; -1 if they are none. ``column_tie`` is the same for the columns."""
    column_tie: int = -1
    groups: int = 1
    """Equal parts of the rows that read one part of the columns each: a grouped kernel is what is left of a dense one,
    so that networks of other groups share it."""


@dataclass(frozen=True)
class _Channels:
    """Channels of one of the activations that were concatenated."""

    width: int
    writer: str = ""
    """Name of the weight that wrote them; empty if none did."""


@torch.inference_mode(False)
def segments(graph: ComputationGraph) -> list[Segment]:
    """Cut every attached parameter of a graph into segments of one address each, in the order of ``graph.params``."""
    places = addresses(graph)
    finder = _Units(graph, places)
    cut = []
    for spec in graph.params:
        if spec.node is not None:
            row_tie, column_tie = finder.tied(spec)
            cut += [
                replace(segment, row_tie=row_tie, column_tie=column_tie)
                for segment in finder.segments(spec, places[spec.name])
            ]
    return cut


class _Units:
    """What a graph says about the channels of its activations: heads, parts of concatenations, and ties."""

    def __init__(self, graph: ComputationGraph, places: Mapping[str, Address]) -> None:
        self.graph = graph
        self.heads: dict[str, list[tuple[str, HeadChannels, int, int]]] = {}
        """By name of a weight: which of ``PARTS`` it makes, by which of its rows, and number and width of the heads."""
        self.reads_heads: dict[str, int] = {}
        """By name of a weight that reads what heads make: their number."""
        for attention in graph.attentions:
            for part, channels in zip(PARTS, (attention.query, attention.key, attention.value), strict=True):
                if channels is not None:
                    heads = self.heads.setdefault(channels.weight.name, [])
                    if not any(part == before for before, *_ in heads):
                        heads.append((part, channels, attention.heads, attention.width))
            if attention.projection is not None:
                self.reads_heads[attention.projection.name] = attention.heads
        self.writers: dict[int, str] = {}
        """Name of the matrix, kernel or table of each operation that has one."""
        self.weight_of: dict[int, str] = {}
        """Those of linear maps and tables alone: their biases are cut as they are."""
        for node in range(len(graph.nodes)):
            for weight in graph.operands(node):
                if weight.role in MIXING_ROLES or weight.role == "embedding":
                    self.writers[node] = weight.name
                if weight.role in ("linear", "embedding"):
                    self.weight_of[node] = weight.name
        self.places = places
        self.parts = self._parts()
        self.ties = self._ties()

    def _ties(self) -> list[int]:
        """Of each node's result, a number that it shares with those whose channels are the same hidden units."""
        roots = list(range(len(self.graph.nodes)))

        def root(node: int) -> int:
            while roots[node] != node:
                roots[node] = node = roots[roots[node]]
            return node

        for node in self.graph.nodes:
            weight = next(
                (spec for spec in self.graph.operands(node.index) if spec.role in MIXING_ROLES), None
            )
            by_channel = weight is None or is_depthwise(weight)
            if node.kind != "concat" and by_channel:
                for source in self.graph.activations(node.index):
                    roots[root(source)] = root(node.index)
        return [root(node) for node in range(len(roots))]

    def tied(self, spec: ParamSpec) -> tuple[int, int]:
        """Ties of what a parameter's rows belong to, and of what its columns read."""
        use = min(self.graph.readers(spec.node)) if spec.node is not None else 0
        if spec.role in ("embedding", "position", "token"):  # rows are entries of a table
            return -1, self.ties[use]
        if spec.role == "relative_bias":
            return -1, -1
        before = self.graph.activations(use)
        return self.ties[use], self.ties[before[0]] if before else -1

    def _parts(self) -> list[tuple[_Channels, ...]]:
        """Of each node's result, what its channels were concatenated from."""
        parts: list[tuple[_Channels, ...]] = []
        for node in self.graph.nodes:
            before = self.graph.activations(node.index)
            channels = node.shape[1] if len(node.shape) in (2, 4) else 0
            own: tuple[_Channels, ...] = (_Channels(channels, self._writer(node.index)),)
            if channels and before:
                if node.kind == "concat" and sum(_total(parts[s]) for s in before) == channels:
                    own = tuple(part for source in before for part in parts[source])
                elif node.index not in self.writers and _total(parts[before[0]]) == channels:
                    own = parts[before[0]]
            parts.append(own)
        return parts

    def _writer(self, index: int) -> str:
        """Name of the weight by which an activation was made."""
        while index not in self.writers and self.graph.activations(index):
            index = self.graph.activations(index)[0]
        return self.writers.get(index, "")

    def segments(self, spec: ParamSpec, address: Address) -> list[Segment]:
        """A parameter in segments: one for each of queries, keys and values; of all else a single one."""
        layout = Layout.of(spec)
        use = min(self.graph.readers(spec.node)) if spec.node is not None else 0
        columns = self._columns(spec, layout, use)
        name = self.weight_of.get(use, "") if spec.role in ("bias", "linear") else ""
        parts = self.heads.get(name, [])
        is_vector = "channel" in spec.axes and math.prod(spec.shape) == spec.shape[spec.axes.index("channel")]
        if (spec.role == "bias" and is_vector) or (spec.role != "bias" and name == spec.name):
            count = spec.numel if is_vector and spec.role == "bias" else layout.rows
            cut = self._heads(spec, address, count, parts, columns if spec.role != "bias" else _flat(1))
            if cut:
                return cut
        if is_vector and spec.role not in ("position", "token", "embedding"):
            # One row a channel.
            rows = self._vector(spec, use)
            return [Segment(spec, address, None, rows, _flat(1), joined=bool(rows[-1, 0] > 0))]
        if is_grouped(spec):
            return [Segment(spec, address, None, _in_order(layout.rows), columns, groups=spec.groups)]
        joined = spec.name not in self.reads_heads and bool(columns[-1, 0] > 0)
        if spec.role == "relative_bias" and len(spec.shape) == 2:  # by head, also where there is one
            rows = torch.cartesian_prod(*map(torch.arange, spec.shape))
        else:
            rows = _grouped(layout)
        return [Segment(spec, address, None, rows, columns, joined)]

    def _heads(
        self,
        spec: ParamSpec,
        address: Address,
        count: int,
        parts: list[tuple[str, HeadChannels, int, int]],
        columns: Tensor,
    ) -> list[Segment]:
        """Queries, keys and values of one map, by head; nothing if they don't cover its rows one by one."""
        cut = []
        covered = torch.zeros(count, dtype=torch.long)
        for part, channels, heads, width in parts:
            if channels.group > heads or heads % channels.group:
                return []
            own = heads // channels.group
            width = min(width, count // own)
            rows = (
                channels.offset
                + torch.arange(own)[:, None] * channels.head_stride
                + torch.arange(width)[None] * channels.stride
            )
            if rows.numel() == 0 or int(rows.max()) >= count:
                return []
            units = torch.stack(
                [
                    (torch.arange(own) * channels.group)[:, None].expand(own, width),
                    torch.arange(width)[None].expand(own, width),
                ],
                -1,
            ).reshape(-1, 2)
            covered[rows.flatten()] += 1
            kind = address.kind
            for together in ("qkv", "qk", "kv", "qv"):
                if kind.endswith(">" + together):
                    kind = kind.removesuffix(together) + part
            place = Address(address.stage, kind, address.index, address.count)
            cut.append(Segment(spec, place, rows.flatten(), units, columns))
        return cut if bool((covered == 1).all()) else []

    def _vector(self, spec: ParamSpec, use: int) -> Tensor:
        """Block and unit of each element of a vector."""
        before = self.graph.activations(use)
        if spec.role in ("norm_weight", "norm_bias") and before:
            parts = self.parts[before[0]]
            if len(parts) > 1 and _total(parts) == spec.numel:
                return self._numbered(parts)
        return self._numbered((_Channels(spec.numel),))

    def _columns(self, spec: ParamSpec, layout: Layout, use: int) -> Tensor:
        """Block, unit and place in the kernel of each column."""
        counted = layout.column_sizes[: len(layout.column_sizes) - layout.spatial]
        kernel = layout.column_sizes[len(layout.column_sizes) - layout.spatial :]
        units = math.prod(counted) * (spec.groups if is_grouped(spec) else 1)
        image = self.graph.nodes[use].attributes.get("image")
        if spec.role == "linear" and isinstance(image, tuple) and math.prod(image) == units:
            units, kernel = image[0], image[1:]
        if spec.name in self.reads_heads and units % self.reads_heads[spec.name] == 0:
            heads = self.reads_heads[spec.name]
            pairs = torch.cartesian_prod(torch.arange(heads), torch.arange(units // heads)).reshape(-1, 2)
        else:
            before = self.graph.activations(use)
            parts = self.parts[before[0]] if before and spec.role in ("conv", "linear") else ()
            whole = len(parts) > 1 and _total(parts) == units
            pairs = self._numbered(parts if whole else (_Channels(units),))
        if not kernel:
            return torch.cat([pairs, torch.zeros(len(pairs), 2, dtype=torch.long)], 1)
        high, wide = (math.prod(kernel[:-1]), kernel[-1]) if len(kernel) > 1 else (1, kernel[0])
        y, x = torch.arange(high) - high // 2, torch.arange(wide) - wide // 2
        places = torch.cartesian_prod(y, x).reshape(-1, 2)
        return torch.cat([pairs.repeat_interleave(len(places), 0), places.repeat(len(pairs), 1)], 1)

    def _numbered(self, parts: Sequence[_Channels]) -> Tensor:
        """Block and number within it of each channel.

        Parts that layers of one kind and relative depth wrote are copies of one block: a deep DenseNet has more of them
        than any that was trained on.
        """
        blocks: dict[object, int] = {}
        times: Counter[str] = Counter()
        numbers = []
        for number, part in enumerate(parts):
            key: object = number
            if part.writer:
                place = self.places[part.writer]
                # What one weight wrote may be there twice, changed on the way.
                key = (place.stage, place.kind, place.depth(MOST_STEPS), times[part.writer])
                times[part.writer] += 1
            block = blocks.setdefault(key, len(blocks))
            numbers.append(torch.stack([torch.full((part.width,), block), torch.arange(part.width)], -1))
        return torch.cat(numbers)


def _in_order(count: int) -> Tensor:
    return torch.stack([torch.zeros(count, dtype=torch.long), torch.arange(count)], -1)


def _grouped(layout: Layout) -> Tensor:
    """Group (or first axis) and unit of each row."""
    sizes = [size for size in layout.row_sizes if size > 1] or [1]
    blocks = sizes[0] if len(sizes) > 1 else 1
    return torch.cartesian_prod(torch.arange(blocks), torch.arange(layout.rows // blocks)).reshape(-1, 2)


def _total(parts: Sequence[_Channels]) -> int:
    return sum(part.width for part in parts)


def _flat(count: int) -> Tensor:
    """Columns that nothing tells apart, such as the one of a vector."""
    return torch.zeros(count, 4, dtype=torch.long)
