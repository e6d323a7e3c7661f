"""A computation graph as torch-geometric data: categories, magnitude-invariant sizes, and edges by distance."""

import math
from collections.abc import Sequence
from graphlib import TopologicalSorter

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch_geometric.data import Data

from ghn.graph.graph import ComputationGraph, Node, ParamSpec
from ghn.graph.ops import KINDS, ROLES

LOG2_LARGEST_SIZE = 24.0
"""Sizes are encoded on a log scale that ends here: 2**24 covers vocabularies and images alike."""

HOPS = (1, 2, 4, 8, 16)
"""Directed distances that get virtual edges: with L layers, information travels up to 31 * L hops."""

EDGE_TYPES = 2 * len(HOPS)
"""Distance and direction of an edge: HOPS forwards, then HOPS backwards."""

MAX_EDGES_PER_NODE = 48
"""Bounds memory: farther hops are left out of a graph once its edges, both directions, would exceed this."""

MAX_EDGES = 2**18
"""Likewise for the whole graph: 18,000 nodes, the most of any transformers model, encode within 1 GB."""

SHAPE_SLOTS = 4
PARAM_SLOTS = ("out", "in", "spatial", "spatial", "channel", "table", "head", "expert")
ATTRIBUTE_SLOTS = (("kernel", 0), ("kernel", 1), ("stride", 0), ("dilation", 0), ("groups", 0), ("heads", 0))
SCALARS = SHAPE_SLOTS + len(PARAM_SLOTS) + len(ATTRIBUTE_SLOTS) + 5
FEATURES = 2 * SCALARS
"""Width of ``Data.x``."""


def log_size(size: float) -> float:
    """Size on a log scale in [0, 1]: 1 maps to 0, ``2**24`` and more to 1; absent sizes count as 1."""
    return min(math.log2(max(size, 1.0)) / LOG2_LARGEST_SIZE, 1.0)


def encode_magnitude(values: Tensor) -> Tensor:
    """Encode scalars in [0, 1] as points on the quarter circle, so that every input has the same norm.

    Args:
        values: Shape ``(..., scalars)``.

    Returns:
        Cosines and sines, shape ``(..., 2 * scalars)``, of norm ``sqrt(scalars)``.

    References:
        MIP, https://arxiv.org/abs/2304.07645, section 3
    """
    angles = values * (math.pi / 2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def plain_magnitude(encoded: Tensor) -> Tensor:
    """The scalars that ``encode_magnitude`` encoded, shape ``(..., scalars)``."""
    cosines, sines = encoded.chunk(2, dim=-1)
    return torch.atan2(sines, cosines) / (math.pi / 2)


def to_pyg(graph: ComputationGraph) -> Data:
    """Turn a graph into torch-geometric data that ``torch_geometric.data.Batch`` can collate.

    Returns:
        ``Data`` with ``kind`` and ``role`` (long, ``(nodes,)``; role 0 marks nodes that are no parameter), ``x``
        (float, ``(nodes, FEATURES)``), ``edge_index`` (long, ``(2, edges)``, virtual edges included), ``edge_type``
        (long, ``(edges,)``, below ``EDGE_TYPES``) and ``param_index`` (long, ``(attached parameters,)``: the node of
        each entry of ``graph.params`` that has one, in that order).
    """
    kinds = {kind: number for number, kind in enumerate(KINDS)}
    roles = {role: number for number, role in enumerate(ROLES, start=1)}
    specs = graph.params_by_node
    topology = _topology(graph)
    edge_index, edge_type = _edges(graph)
    return Data(
        kind=torch.tensor([kinds.get(node.kind, kinds["other"]) for node in graph.nodes], dtype=torch.long),
        role=torch.tensor(
            [roles[specs[node.index].role] if node.index in specs else 0 for node in graph.nodes],
            dtype=torch.long,
        ),
        x=encode_magnitude(
            torch.tensor(
                [_scalars(node, specs.get(node.index)) + topology[node.index] for node in graph.nodes]
            )
        ),
        edge_index=edge_index,
        edge_type=edge_type,
        param_index=torch.tensor(
            [spec.node for spec in graph.params if spec.node is not None], dtype=torch.long
        ),
        num_nodes=len(graph.nodes),
    )


def _scalars(node: Node, spec: ParamSpec | None) -> list[float]:
    """Log sizes of a node's output, of its parameter's axes by role, and of what the operation was called with."""
    shape: Sequence[int] = () if spec else node.shape[1 : 1 + SHAPE_SLOTS]
    values = [log_size(size) for size in shape] + [0.0] * (SHAPE_SLOTS - len(shape))
    sizes: list[tuple[str, int]] = list(zip(spec.axes, spec.shape, strict=True)) if spec else []
    for role in PARAM_SLOTS:
        axis_size = next((axis for axis in sizes if axis[0] == role), None)
        if axis_size:
            sizes.remove(axis_size)
        values.append(log_size(axis_size[1]) if axis_size else 0.0)
    for name, position in ATTRIBUTE_SLOTS:
        attribute = spec.groups if spec and name == "groups" else node.attributes.get(name, 1)
        entries = attribute if isinstance(attribute, tuple) else (attribute,)
        values.append(log_size(entries[min(position, len(entries) - 1)]) if entries else 0.0)
    return values


def _topology(graph: ComputationGraph) -> list[list[float]]:
    """Depth from the inputs and to the outputs (longest paths, relative and absolute) and in-degree of every node."""
    count = len(graph.nodes)
    sources = [graph.sources(node) for node in range(count)]
    order = list(TopologicalSorter(dict(enumerate(sources))).static_order())
    above, below = [0] * count, [0] * count
    for target in order:
        above[target] = max((above[source] + 1 for source in sources[target]), default=0)
    for target in reversed(order):
        for source in sources[target]:
            below[source] = max(below[source], below[target] + 1)
    # A parameter sits where it is used, not at depth 0.
    for node in graph.nodes:
        if node.kind == "parameter":
            above[node.index] = max((above[reader] - 1 for reader in graph.readers(node.index)), default=0)
    deepest = max(above, default=0) or 1
    return [
        [
            above[i] / deepest,
            log_size(above[i]),
            min(below[i] / deepest, 1.0),
            log_size(below[i]),
            log_size(len(sources[i])),
        ]
        for i in range(count)
    ]


def _edges(graph: ComputationGraph) -> tuple[Tensor, Tensor]:
    """Edges between nodes whose shortest directed distance is in HOPS, forwards and backwards."""
    count = len(graph.nodes)
    pairs = {(edge.source, edge.target) for edge in graph.edges}
    sources, targets = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T
    adjacency = scipy.sparse.csr_array(
        (np.ones(len(sources), dtype=np.int32), (sources, targets)), shape=(count, count)
    )
    budget = min(MAX_EDGES_PER_NODE * count, MAX_EDGES)
    reached, frontier, kept, total = adjacency.copy(), adjacency, [], 0
    for distance in range(1, HOPS[-1] + 1):
        if distance > 1:
            frontier = frontier @ adjacency
            frontier.data[:] = 1
            frontier = frontier - frontier.multiply(reached)
            frontier.eliminate_zeros()
            reached = reached + frontier
        if frontier.nnz == 0 or (distance > 1 and 2 * (total + frontier.nnz) > budget):
            break
        if distance in HOPS:
            rows, cols = frontier.nonzero()
            kept.append((HOPS.index(distance), np.stack([rows, cols])))
            total += frontier.nnz
    if not kept:
        return torch.zeros(2, 0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    forward = torch.from_numpy(np.concatenate([pair for _, pair in kept], axis=1)).long()
    types = torch.cat([torch.full((pair.shape[1],), hop) for hop, pair in kept])
    return torch.cat([forward, forward.flip(0)], dim=1), torch.cat([types, types + len(HOPS)])
