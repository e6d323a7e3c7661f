"""Which hidden unit each row and column of a parameter belongs to, so that equal units of different networks can share.

A unit has two coordinates on a side: a block (a group of a convolution, a head, a part of a concatenation) and its
number within the block. Columns of kernels have two more, counted from the kernel's centre.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ghn.graph.addresses import Address, addresses
from ghn.graph.graph import ComputationGraph, ParamSpec
from ghn.graph.layout import Layout
from ghn.graph.structure import HeadChannels

PARTS = ("q", "k", "v")


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


@torch.inference_mode(False)
def segments(graph: ComputationGraph) -> list[Segment]:
    """Cut every attached parameter of a graph into segments of one address each, in the order of ``graph.params``."""
    places = addresses(graph)
    finder = _Units(graph)
    found = []
    for spec in graph.params:
        if spec.node is not None:
            found += finder.segments(spec, places[spec.name])
    return found


class _Units:
    def __init__(self, graph: ComputationGraph) -> None:
        self.graph = graph
        self.heads: dict[str, list[tuple[str, HeadChannels, int, int]]] = {}
        self.reads_heads: dict[str, int] = {}
        for attention in graph.attentions:
            for part, channels in zip(PARTS, (attention.query, attention.key, attention.value), strict=True):
                if channels is not None:
                    known = self.heads.setdefault(channels.weight.name, [])
                    if not any(part == before for before, *_ in known):
                        known.append((part, channels, attention.heads, attention.width))
            if attention.projection is not None:
                self.reads_heads[attention.projection.name] = attention.heads
        self.weight_of = {
            node: weight.name
            for node in range(len(graph.nodes))
            for weight in graph.operands(node)
            if weight.role in ("linear", "embedding")
        }
        self.widths = self._widths()

    def _widths(self) -> list[tuple[int, ...]]:
        """Of the parts that the channels of each node's image were concatenated from."""
        found: list[tuple[int, ...]] = []
        for node in self.graph.nodes:
            before = self.graph.activations(node.index)
            channels = node.shape[1] if len(node.shape) == 4 else 0
            own: tuple[int, ...] = (channels,)
            if channels and before:
                if node.kind == "concat" and sum(sum(found[s]) for s in before) == channels:
                    own = tuple(width for source in before for width in found[source])
                elif node.kind not in ("conv", "conv_transpose") and sum(found[before[0]]) == channels:
                    own = found[before[0]]
            found.append(own)
        return found

    def segments(self, spec: ParamSpec, address: Address) -> list[Segment]:
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
            return [Segment(spec, address, None, rows, _flat(1))]
        return [Segment(spec, address, None, _grouped(layout), columns)]

    def _heads(
        self,
        spec: ParamSpec,
        address: Address,
        count: int,
        parts: list[tuple[str, HeadChannels, int, int]],
        columns: Tensor,
    ) -> list[Segment]:
        """Queries, keys and values of one map, by head; nothing if they don't cover its rows one by one."""
        found = []
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
            found.append(Segment(spec, place, rows.flatten(), units, columns))
        return found if found and bool((covered == 1).all()) else []

    def _vector(self, spec: ParamSpec, use: int) -> Tensor:
        before = self.graph.activations(use)
        if spec.role in ("norm_weight", "norm_bias") and before:
            widths = self.widths[before[0]]
            if len(widths) > 1 and sum(widths) == spec.numel:
                return _parts(widths)
        return _parts((spec.numel,))

    def _columns(self, spec: ParamSpec, layout: Layout, use: int) -> Tensor:
        counted = layout.column_sizes[: len(layout.column_sizes) - layout.spatial]
        kernel = layout.column_sizes[len(layout.column_sizes) - layout.spatial :]
        units = math.prod(counted)
        if spec.name in self.reads_heads and units % self.reads_heads[spec.name] == 0:
            heads = self.reads_heads[spec.name]
            pairs = torch.cartesian_prod(torch.arange(heads), torch.arange(units // heads)).reshape(-1, 2)
        else:
            before = self.graph.activations(use)
            widths = self.widths[before[0]] if before and spec.role == "conv" else ()
            whole = len(widths) > 1 and sum(widths) == units
            pairs = _parts(widths if whole else (units,))
        if not kernel:
            return torch.cat([pairs, torch.zeros(len(pairs), 2, dtype=torch.long)], 1)
        high, wide = (math.prod(kernel[:-1]), kernel[-1]) if len(kernel) > 1 else (1, kernel[0])
        y, x = torch.arange(high) - high // 2, torch.arange(wide) - wide // 2
        places = torch.cartesian_prod(y, x).reshape(-1, 2)
        return torch.cat([pairs.repeat_interleave(len(places), 0), places.repeat(len(pairs), 1)], 1)


def _grouped(layout: Layout) -> Tensor:
    """Group (or first axis) and unit of each row."""
    sizes = [size for size in layout.row_sizes if size > 1] or [1]
    blocks = sizes[0] if len(sizes) > 1 else 1
    return torch.cartesian_prod(torch.arange(blocks), torch.arange(layout.rows // blocks)).reshape(-1, 2)


def _parts(widths: tuple[int, ...]) -> Tensor:
    """Part and number within the part of each channel."""
    return torch.cat(
        [
            torch.stack([torch.full((width,), part), torch.arange(width)], -1)
            for part, width in enumerate(widths)
        ]
    )


def _flat(count: int) -> Tensor:
    return torch.zeros(count, 4, dtype=torch.long)
