"""From the record of a run to a graph: simplified nodes, edges, and a specification of every parameter."""

import math

import torch

from ghn.graph.graph import ComputationGraph, Edge, Node, ParamSpec
from ghn.graph.ops import ACTIVATIONS
from ghn.settings import own_settings
from ghn.tracing.channels import ChannelFinder, Products
from ghn.tracing.images import flattened_images
from ghn.tracing.passes import Group, drop_unread
from ghn.tracing.passes import simplify as simplify_groups
from ghn.tracing.recorder import RawNode
from ghn.tracing.registry import ParameterRegistry
from ghn.tracing.roles import RoleFinder

Facts = dict[str, float | tuple[int, ...]]

UNUSED = "no executed operation uses it"
SPARSE = "it is sparse: predicted weights are dense"


@own_settings()
def build_graph(nodes: list[RawNode], registry: ParameterRegistry, simplify: bool) -> ComputationGraph:
    """Turn recorded nodes into a graph with one ``ParamSpec`` per distinct parameter.

    Args:
        nodes: In execution order.
        registry: Names and tensors of the parameters.
        simplify: Collapse what doesn't matter for the weights; no parameter is ever lost.
    """
    finder = RoleFinder(nodes)
    groups = {index: Group(node, [node.kind], list(node.inputs)) for index, node in enumerate(nodes)}
    attentions = {
        index: Products(index, index) for index, node in enumerate(nodes) if node.kind == "attention"
    }
    if simplify:
        attentions |= simplify_groups(groups, finder)
    drop_unread(groups)
    channels = ChannelFinder(nodes, finder)
    facts = {index: channels.facts(products) for index, products in attentions.items() if index in groups}
    facts |= flattened_images(nodes)
    order = sorted(groups)
    number = {index: position for position, index in enumerate(order)}
    edges = sorted(
        {
            Edge(number[source], number[index], slot)
            for index in order
            for source, slot in groups[index].inputs
        }
    )
    positions = {
        groups[index].node.parameter: number[index]
        for index in order
        if groups[index].node.kind == "parameter"
    }
    numbers = [groups[index].node.parameter for index in order]
    names = ["" if parameter is None else registry.names[parameter][0] for parameter in numbers]
    return ComputationGraph(
        nodes=tuple(
            _node(number[index], groups[index], name, facts.get(index, {}))
            for index, name in zip(order, names, strict=True)
        ),
        edges=tuple(edges),
        params=tuple(_specs(registry, positions, finder)),
    )


def _specs(
    registry: ParameterRegistry, positions: dict[int | None, int], finder: RoleFinder
) -> list[ParamSpec]:
    indices = {node.parameter: index for index, node in enumerate(finder.nodes) if node.kind == "parameter"}
    specs = []
    for parameter, names in enumerate(registry.names):
        tensor: torch.Tensor = registry.tensors[parameter]
        shape, attached = tuple(tensor.shape), parameter in positions
        # Integers, complex numbers and nothing at all: no rule says what they should be.
        dense = tensor.layout == torch.strided
        has_rule = attached and dense and tensor.is_floating_point() and tensor.numel() > 0
        role = finder.role(indices[parameter]) if has_rule else None
        specs.append(
            ParamSpec(
                names=tuple(names),
                shape=shape,
                dtype=tensor.dtype,
                role=role.role if role else "unknown",
                axes=role.axes if role else ("unknown",) * len(shape),
                groups=role.groups if role else 1,
                factor=role.factor if role else 1.0,
                behind=role.behind if role else 1.0,
                centre=role.centre if role else None,
                trainable=tensor.requires_grad,
                node=positions.get(parameter),
                reason=UNUSED if not attached else (role.reason if role else "") if dense else SPARSE,
            )
        )
    return specs


def _node(index: int, group: Group, name: str, facts: Facts) -> Node:
    raw = group.node
    return Node(
        index=index,
        kind=_region_kind(group),
        module=raw.module,
        shape=raw.shape,
        attributes=_attributes(raw) | facts,
        param=name if raw.kind == "parameter" else None,
    )


def _region_kind(group: Group) -> str:
    """Name of an operation with others merged into it."""
    kinds, sources = set(group.kinds), len({source for source, _ in group.inputs})
    if len(group.kinds) == 1:
        return group.node.kind
    if "rsqrt" in kinds and "mean" in kinds:
        return "rms_norm"
    if sources > 1 and group.node.kind in ("add", "sub", "mul", "div", "where"):
        return group.node.kind
    if "erf" in kinds or ("tanh" in kinds and ("pow" in kinds or "mul" in kinds)):
        return "gelu"
    if "sigmoid" in kinds and "mul" in kinds:
        return "silu"
    return group.node.kind if group.node.kind in ACTIVATIONS else "elementwise"


def _attributes(raw: RawNode) -> Facts:
    """Numbers an operation was called with, under the names features use."""
    attributes: Facts = {}
    for key, name in (
        ("stride", "stride"),
        ("dilation", "dilation"),
        ("padding", "padding"),
        ("kernel_size", "kernel"),
    ):
        value = raw.arguments.get(key)
        if isinstance(value, tuple) and value and all(isinstance(entry, int) for entry in value):
            attributes[name] = value
    if raw.kind in ("conv", "conv_transpose"):
        attributes["kernel"] = tuple(raw.arguments.get("weight", ()))[2:]
    for key in ("groups", "num_groups"):
        if isinstance(raw.arguments.get(key), int):
            attributes["groups"] = raw.arguments[key]
    if raw.kind == "attention" and len(raw.shape) == 4:
        attributes["heads"] = raw.shape[1]
    padding = raw.arguments.get("padding_idx")
    if raw.kind == "embedding" and isinstance(padding, int) and padding >= 0:
        attributes["padding"] = padding
    number = raw.arguments.get("other")
    if raw.kind in ("mul", "div") and isinstance(number, int | float) and 0 < number < math.inf:
        attributes["factor"] = float(number) if raw.kind == "mul" else 1 / number
    return attributes
