"""Closed-form initialization of attention: query·key near the identity, value·projection near its negative.

Reference: Trockman and Kolter, https://arxiv.org/abs/2305.09828
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ghn.graph.graph import ComputationGraph, ParamSpec
from ghn.graph.structure import Attention

QUERY_KEY = (0.7, 0.7)
"""Noise and identity in query·key; the paper's values for vision."""

VALUE_PROJECTION = (0.4, 0.4)
"""Noise and negative identity in value·projection; the paper's values for vision."""


def mimetic_attentions_(
    model: nn.Module, graph: ComputationGraph, generator: torch.Generator
) -> tuple[int, int]:
    """Write all attention layers whose query, key and value are linear maps of one input.

    Key heads that several query heads share get the first one's factor, and the other queries their least-squares
    counterpart. Biases stay.

    Args:
        model: Written in place.
        graph: Its trace.
        generator: Draws the noise, on the CPU.

    Returns:
        Number of attention layers written, and found.
    """
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    layers = sum(node.kind == "attention" for node in graph.nodes)
    queries: set[tuple[str, int]] = set()
    count = 0
    for attention in graph.attentions:
        key = (attention.query.weight.name, attention.query.offset)
        if key in queries or not _fits(attention):
            continue
        _write_query_key(attention, parameters, generator)
        _write_value_projection(attention, parameters, generator)
        queries.add(key)
        count += 1
    return count, layers


def as_out_in(parameter: Tensor, spec: ParamSpec) -> Tensor:
    """View of a matrix (GPT-2 stores them transposed), or of a convolution of single positions: rows are outputs."""
    return parameter.mT if spec.axes[:1] == ("in",) else parameter.flatten(1)


def sinusoids(count: int, channels: int) -> Tensor:
    """Position vectors of https://arxiv.org/abs/1706.03762, shape ``(count, channels)``."""
    frequencies = torch.exp(torch.arange(0, channels, 2) * (-math.log(10_000.0) / channels))
    angles = torch.arange(count)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :channels]


def _fits(attention: Attention) -> bool:
    """Whether queries and keys are matrices that read equally many channels, at least a head's."""
    maps = [side.weight for side in (attention.query, attention.key, attention.value) if side]
    if any(len(spec.shape) > 2 and spec.role != "conv" for spec in maps):
        return False
    query, key = _shape(attention.query.weight), _shape(attention.key.weight)
    return query[1] == key[1] and attention.width <= query[1]


def _shape(spec: ParamSpec) -> tuple[int, int]:
    """Outputs and inputs of a matrix."""
    sizes = spec.shape[:2]
    return (sizes[1], sizes[0]) if spec.axes[:1] == ("in",) else (sizes[0], sizes[1])


def _write_query_key(
    attention: Attention, parameters: Mapping[str, Tensor], generator: torch.Generator
) -> None:
    query, key = (
        as_out_in(parameters[channels.weight.name], channels.weight)
        for channels in (attention.query, attention.key)
    )
    width, channels = attention.width, query.shape[1]
    rows = attention.query.rows(attention.heads, width), attention.key.rows(attention.heads, width)
    for head in range(attention.heads):
        near_identity = _noisy_identity(channels, *QUERY_KEY, generator)
        if head == 0 or not torch.equal(rows[1][head], rows[1][head - 1]):
            left, singular, right = torch.linalg.svd(near_identity)
            root = singular[:width].sqrt()
            key[rows[1][head]] = (root[:, None] * right[:width]).to(key)
            factor = (left[:, :width] * root).mT
        else:
            factor = (near_identity @ right[:width].mT / root).mT
        query[rows[0][head]] = factor.to(query)


def _write_value_projection(
    attention: Attention, parameters: Mapping[str, Tensor], generator: torch.Generator
) -> None:
    if attention.value is None or attention.projection is None:
        return
    value = as_out_in(parameters[attention.value.weight.name], attention.value.weight)
    projection = as_out_in(parameters[attention.projection.name], attention.projection)
    channels, inner = projection.shape
    width = inner // attention.heads
    rows = attention.value.rows(attention.heads, width)
    group = attention.value.group
    rank = inner // group
    if value.shape[1] != channels or rank > channels:
        return
    left, singular, right = torch.linalg.svd(_noisy_identity(channels, *VALUE_PROJECTION, generator, sign=-1))
    root = singular[:rank].sqrt()
    value[rows[::group].flatten()] = (left[:, :rank] * root).mT.to(value)
    # Value heads that several query heads read share their part of the product.
    by_head = (right[:rank].mT * root).reshape(channels, rank // width, 1, width).expand(-1, -1, group, -1)
    projection.copy_(by_head.reshape(channels, inner) / group)


def _noisy_identity(
    size: int, noise: float, identity: float, generator: torch.Generator, sign: int = 1
) -> Tensor:
    normal = torch.randn(size, size, generator=generator) / math.sqrt(size)
    return noise * normal + sign * identity * torch.eye(size)
