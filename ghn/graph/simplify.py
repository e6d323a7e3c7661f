"""From the record of a run to a graph worth encoding: constants, shape operations and elementwise clutter collapse."""

import math
from collections import defaultdict
from dataclasses import dataclass, field

import torch

from ghn.graph.channels import ChannelFinder, Products
from ghn.graph.graph import ComputationGraph, Edge, Node, ParamSpec
from ghn.graph.ops import ACTIVATIONS, ELEMENTWISE, PRODUCTS
from ghn.graph.recorder import RawNode
from ghn.graph.roles import RoleFinder
from ghn.graph.skeleton import ParameterRegistry
from ghn.settings import own_settings

BYPASSED = frozenset({"shape", "dropout", "copy"})
"""Kinds that leave values as they are; a node of these kinds disappears if it has one source."""

SINKS = ELEMENTWISE | {"mean"}
"""Kinds of nodes that take their only source into themselves, if it is one of ``MERGED``."""

MERGED = (SINKS - ACTIVATIONS) | {"sigmoid", "tanh"}
"""Kinds of nodes that disappear into the only one that reads them, if it is one of ``SINKS``."""

Facts = dict[str, float | tuple[int, ...]]

MAX_SCORE_STEPS = 4
"""One more than the elementwise operations that are allowed between the product of queries and keys and its softmax."""

UNUSED = "no executed operation uses it"
SPARSE = "it is sparse: predicted weights are dense"


@dataclass
class _Group:
    """A node of the simplified graph while it grows: the operation that names it and those merged into it."""

    node: RawNode
    kinds: list[str] = field(default_factory=list)
    inputs: list[tuple[int, int]] = field(default_factory=list)


@own_settings()
def build_graph(nodes: list[RawNode], registry: ParameterRegistry, simplify: bool) -> ComputationGraph:
    """Turn recorded nodes into a graph with one ``ParamSpec`` per distinct parameter.

    Args:
        nodes: In execution order.
        registry: Names and tensors of the parameters.
        simplify: Collapse what doesn't matter for the weights; no parameter is ever lost.
    """
    finder = RoleFinder(nodes)
    groups = {index: _Group(node, [node.kind], list(node.inputs)) for index, node in enumerate(nodes)}
    attentions = {
        index: Products(index, index) for index, node in enumerate(nodes) if node.kind == "attention"
    }
    if simplify:
        _fold_constants(groups, finder)
        _bypass(groups)
        _merge_elementwise(groups)
        attentions |= _fuse_attention(groups)
    _drop_unread(groups)
    channels = ChannelFinder(nodes, finder)
    facts = {index: channels.facts(products) for index, products in attentions.items() if index in groups}
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
    recorded = {node.parameter: index for index, node in enumerate(finder.nodes) if node.kind == "parameter"}
    specs = []
    for parameter, names in enumerate(registry.names):
        tensor: torch.Tensor = registry.tensors[parameter]
        shape, attached = tuple(tensor.shape), parameter in positions
        # Integers, complex numbers and nothing at all: no rule says what they should be.
        dense = tensor.layout == torch.strided
        ruled = attached and dense and tensor.is_floating_point() and tensor.numel() > 0
        role = finder.role(recorded[parameter]) if ruled else None
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


def _node(index: int, group: _Group, name: str, facts: Facts) -> Node:
    raw = group.node
    return Node(
        index=index,
        kind=_region_kind(group),
        module=raw.module,
        shape=raw.shape,
        attributes=_attributes(raw) | facts,
        param=name if raw.kind == "parameter" else None,
    )


def _region_kind(group: _Group) -> str:
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


def _fold_constants(groups: dict[int, _Group], finder: RoleFinder) -> None:
    """Let parameters reach the operations that use them directly, dropping what is computed from parameters alone."""
    parameters: dict[int, list[int]] = {}
    for index, group in list(groups.items()):
        if group.node.kind == "parameter":
            parameters[index] = [index]
        elif finder.constant[index] and finder.readers[index]:
            sources = [parameter for source, _ in group.inputs for parameter in parameters[source]]
            parameters[index] = list(dict.fromkeys(sources))
            del groups[index]
        else:
            group.inputs = [
                (parameter, slot)
                for source, slot in group.inputs
                for parameter in parameters.get(source, [source])
            ]


def _bypass(groups: dict[int, _Group]) -> None:
    """Remove operations that only move values, and operations without any source left."""
    target: dict[int, int] = {}
    for index, group in list(groups.items()):
        group.inputs = [(target.get(source, source), slot) for source, slot in group.inputs]
        distinct = list(dict.fromkeys(source for source, _ in group.inputs))
        movable = group.node.kind in BYPASSED or (
            group.node.kind in ("concat", "stack") and len(group.inputs) == 1
        )
        if movable and len(distinct) == 1 and groups[distinct[0]].node.kind != "parameter":
            target[index] = distinct[0]
            del groups[index]


def _readers(groups: dict[int, _Group]) -> dict[int, set[int]]:
    readers: dict[int, set[int]] = defaultdict(set)
    for index, group in groups.items():
        for source, _ in group.inputs:
            readers[source].add(index)
    return readers


def _merge_elementwise(groups: dict[int, _Group]) -> None:
    """Merge an elementwise operation without parameters into the only, elementwise, operation that reads it."""
    readers = _readers(groups)
    for index in sorted(groups):
        group = groups[index]
        only = next(iter(readers[index])) if len(readers[index]) == 1 else None
        if only is None or group.node.kind not in MERGED or groups[only].node.kind not in SINKS:
            continue
        takes_parameter = any(groups[source].node.kind == "parameter" for source, _ in group.inputs)
        activations = {source for source, _ in group.inputs}
        joins = (
            group.node.kind in ("add", "mul")
            and len(activations) > 1
            and not _same_origin(groups, activations)
        )
        if takes_parameter or joins or (group.node.kind == "mean" and group.node.shape[-1:] != (1,)):
            continue
        reader = groups[only]
        slot = min(slot for source, slot in reader.inputs if source == index)
        merged = [entry for entry in reader.inputs if entry[0] != index] + [
            (source, slot) for source in activations
        ]
        reader.inputs = sorted(set(merged), key=lambda entry: (entry[1], entry[0]))
        reader.kinds += group.kinds
        for source in activations:
            readers[source].discard(index)
            readers[source].add(only)
        del groups[index]


def _same_origin(groups: dict[int, _Group], sources: set[int]) -> bool:
    """Whether one of the sources computes the others' values entry by entry (x and its square, say)."""
    first = min(sources)
    return all(
        source == first
        or (groups[source].node.kind in SINKS and {s for s, _ in groups[source].inputs} <= {first})
        for source in sources
    )


def _fuse_attention(groups: dict[int, _Group]) -> dict[int, Products]:
    """Recognize softmax(query key) value written out as products, and make it one 'attention' node.

    Scores that something else reads too (attention maps that are returned) stay beside it.

    Returns:
        The two products of each, by the index of the new node.
    """
    readers = _readers(groups)
    found = {}
    for index in sorted(groups):
        if groups[index].node.kind != "softmax":
            continue
        inner = _product_before(groups, index)
        outer = [reader for reader in readers[index] if groups[reader].node.kind == "matmul"]
        if inner is None or len(outer) != 1:
            continue
        before, chain = inner
        scores, product = groups[before], groups[outer[0]]
        values = [(source, 2) for source, _ in product.inputs if source != index]
        operands = [(source, min(slot, 1)) for source, slot in scores.inputs]
        masks = [
            (source, 3)
            for link in (*chain, index)
            for source, _ in groups[link].inputs
            if source not in (*chain, before)
        ]
        product.node = RawNode("attention", "attention", product.node.module, shape=product.node.shape)
        product.kinds = ["attention"]
        product.inputs = sorted({*operands, *values, *masks}, key=lambda entry: (entry[1], entry[0]))
        found[outer[0]] = Products(before, outer[0])
    return found


def _product_before(groups: dict[int, _Group], softmax: int) -> tuple[int, list[int]] | None:
    """The product that feeds a softmax, through elementwise operations (scale, mask), and those operations."""
    paths: list[list[int]] = [[softmax]]
    for _ in range(MAX_SCORE_STEPS):
        sources = [(path, source) for path in paths for source, _ in groups[path[-1]].inputs]
        for path, source in sources:
            if groups[source].node.kind in PRODUCTS:
                return source, path[1:]
        paths = [[*path, source] for path, source in sources if groups[source].node.kind in ELEMENTWISE]
    return None


def _drop_unread(groups: dict[int, _Group]) -> None:
    """Remove inputs and results that nobody reads, unless only they use some parameter."""
    readers = _readers(groups)
    for index in sorted(groups, reverse=True):
        group = groups[index]
        if readers[index] or group.node.kind == "output":
            continue
        sole = any(
            groups[source].node.kind == "parameter" and readers[source] == {index}
            for source, _ in group.inputs
        )
        if group.node.kind == "parameter" or not sole:
            for source, _ in group.inputs:
                readers[source].discard(index)
            del groups[index]
