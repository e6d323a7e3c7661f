"""Closed-form initialization of attention: query·key near the identity, value·projection near its negative.

Reference: Trockman and Kolter, https://arxiv.org/abs/2305.09828
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghn.graph.graph import ComputationGraph, ParamSpec

QUERY_KEY = (0.7, 0.7)
"""Noise and identity in query·key; the paper's values for vision."""

VALUE_PROJECTION = (0.4, 0.4)
"""Noise and negative identity in value·projection; the paper's values for vision."""

INTERLEAVED = ("bloom", "gpt_neox", "gpt_neox_japanese", "falcon", "persimmon")
"""Model types of transformers whose fused rows go (head, query | key | value) and not (query | key | value, head)."""


@dataclass(frozen=True, kw_only=True)
class Attention:
    """The linear maps around one scaled dot-product attention."""

    heads: int
    width: int
    """Channels of a head."""
    query: "Rows"
    key: "Rows"
    value: "Rows"
    projection: ParamSpec | None
    """None if something other than a linear map reads the result."""


@dataclass(frozen=True)
class Rows:
    """A third of a fused weight, or a whole one."""

    spec: ParamSpec
    part: int = 0
    parts: int = 1

    def of(self, parameters: dict[str, nn.Parameter]) -> Tensor:
        """View of the weight, shape ``(out, in)``; writing to it writes to the parameter."""
        weight = as_out_in(parameters[self.spec.name], self.spec)
        return weight.chunk(self.parts)[self.part]


def mimetic_attentions_(
    model: nn.Module, graph: ComputationGraph, generator: torch.Generator
) -> tuple[int, int]:
    """Write all attention layers whose query, key and value are linear maps of one input.

    Key heads that several query heads share get the first one's factor, and the other queries their least-squares
    counterpart. Biases stay.

    Args:
        model: Written in place.
        graph: Its trace.
        generator: Of the noise, on the CPU.

    Returns:
        Number of attention layers written, and found.
    """
    parameters = dict(model.named_parameters())
    layers = sum(node.kind == "attention" for node in graph.nodes)
    model_type = getattr(getattr(model, "config", None), "model_type", "")
    written: set[str] = set()
    count = 0
    for attention in find_attentions(graph):
        fused = attention.query.parts > 1
        if (fused and model_type in INTERLEAVED) or attention.query.spec.name in written:
            continue
        query, key, value = (
            rows.of(parameters) for rows in (attention.query, attention.key, attention.value)
        )
        if not _fits(query, key, value, attention):
            continue
        with torch.no_grad():
            _write_query_key(query, key, attention.heads, generator)
            if attention.projection is not None:
                projection = as_out_in(parameters[attention.projection.name], attention.projection)
                _write_value_projection(value, projection, query.shape[0], attention.heads, generator)
        written.add(attention.query.spec.name)
        count += 1
    return count, layers


def find_attentions(graph: ComputationGraph) -> Iterator[Attention]:
    """Attention layers of a graph with the weights that make their query, key and value."""
    specs = {spec.node: spec for spec in graph.params if spec.node is not None}
    sources: dict[int, list[tuple[int, int]]] = {}
    readers: dict[int, list[int]] = {}
    for source, target, slot in graph.edges:
        sources.setdefault(target, []).append((slot, source))
        readers.setdefault(source, []).append(target)

    def weight_before(index: int) -> ParamSpec | None:
        """Weight of the linear map that a value comes from, through norms, scales and rotations."""
        for _ in range(8):
            found = [specs[source] for _, source in sources.get(index, []) if source in specs]
            matrices = [spec for spec in found if spec.role == "linear" and len(spec.shape) == 2]
            if matrices:
                return matrices[0]
            before = [source for _, source in sorted(sources.get(index, [])) if source not in specs]
            if not before:
                return None
            index = before[0]
        return None

    for node in graph.nodes:
        heads = node.attributes.get("heads")
        if node.kind != "attention" or not isinstance(heads, int | float):
            continue
        inputs = dict(sorted(sources.get(node.index, []), reverse=True))
        weights = [weight_before(inputs[slot]) if slot in inputs else None for slot in range(3)]
        query, key, value = weights
        if query is None or key is None or value is None:
            continue
        after = [
            weight for reader in readers.get(node.index, []) for weight in [_linear(reader, sources, specs)]
        ]
        names = len({query.name, key.name, value.name})
        if names == 2:
            continue
        parts = 4 - names
        rows = [Rows(spec, part % parts, parts) for part, spec in enumerate((query, key, value))]
        yield Attention(
            heads=int(heads),
            width=node.shape[-1],
            query=rows[0],
            key=rows[1],
            value=rows[2],
            projection=after[0] if after else None,
        )


def as_out_in(parameter: Tensor, spec: ParamSpec) -> Tensor:
    """View of a matrix with rows for outputs; GPT-2's are stored the other way."""
    return parameter.detach() if spec.axes[:1] != ("in",) else parameter.detach().mT


def sinusoids(count: int, channels: int) -> Tensor:
    """Position vectors of https://arxiv.org/abs/1706.03762, shape ``(count, channels)``."""
    frequencies = torch.exp(torch.arange(0, channels, 2) * (-math.log(10_000.0) / channels))
    angles = torch.arange(count)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :channels]


def _linear(
    reader: int, sources: dict[int, list[tuple[int, int]]], specs: dict[int, ParamSpec]
) -> ParamSpec | None:
    read = [specs[source] for _, source in sources[reader] if source in specs]
    return next((spec for spec in read if spec.role == "linear" and len(spec.shape) == 2), None)


def _fits(query: Tensor, key: Tensor, value: Tensor, attention: Attention) -> bool:
    """Whether heads divide the outputs, and all read the same number of channels, at least a head's.

    Attention between channels (XCiT) doesn't fit: what it returns per head is as wide as there are tokens.
    """
    heads, width = attention.heads, attention.width
    return (
        query.shape[0] == width * heads
        and key.shape[0] % width == 0
        and heads % (key.shape[0] // width) == 0
        and query.shape[1] == key.shape[1] == value.shape[1]
        and width <= query.shape[1]
    )


def _write_query_key(query: Tensor, key: Tensor, heads: int, generator: torch.Generator) -> None:
    inner, channels = query.shape
    width = inner // heads
    shared_by = heads // (key.shape[0] // width)
    for head in range(heads):
        near_identity = _noisy_identity(channels, *QUERY_KEY, generator)
        if head % shared_by == 0:
            left, singular, right = torch.linalg.svd(near_identity)
            root = singular[:width].sqrt()
            start = head // shared_by * width
            key[start : start + width] = (root[:, None] * right[:width]).to(key)
            rows = (left[:, :width] * root).mT
        else:
            rows = (near_identity @ right[:width].mT / root).mT
        query[head * width : (head + 1) * width] = rows.to(query)


def _write_value_projection(
    value: Tensor, projection: Tensor, inner: int, heads: int, generator: torch.Generator
) -> None:
    rank, channels = value.shape
    if projection.shape != (channels, inner) or rank > channels or inner % rank:
        return
    left, singular, right = torch.linalg.svd(_noisy_identity(channels, *VALUE_PROJECTION, generator, sign=-1))
    root = singular[:rank].sqrt()
    value.copy_((left[:, :rank] * root).mT)
    columns = right[:rank].mT * root
    # Value heads that several query heads read share their part of the product.
    repeats = inner // rank
    width = inner // heads
    by_head = columns.reshape(channels, rank // width, 1, width).expand(-1, -1, repeats, -1)
    projection.copy_(by_head.reshape(channels, inner) / repeats)


def _noisy_identity(
    size: int, noise: float, identity: float, generator: torch.Generator, sign: int = 1
) -> Tensor:
    drawn = torch.randn(size, size, generator=generator) / math.sqrt(size)
    return noise * drawn + sign * identity * torch.eye(size)
