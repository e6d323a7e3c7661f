"""Laws of the graph's numeric form."""

import math

import pytest
import torch
from torch import nn

from ghn.graph.features import (
    EDGE_TYPES,
    FEATURES,
    HOPS,
    MAX_EDGES_PER_NODE,
    encode_magnitude,
    log_size,
    to_pyg,
)
from ghn.graph.graph import ComputationGraph, Edge, Node
from ghn.tracing.trace import trace


def chain(length: int) -> ComputationGraph:
    """A graph of operations in a row."""
    nodes = tuple(Node(index=i, kind="relu", shape=(2, 8)) for i in range(length))
    return ComputationGraph(nodes=nodes, edges=tuple(Edge(i, i + 1, 0) for i in range(length - 1)), params=())


def test_sizes_are_encoded_with_constant_norm():
    sizes = torch.tensor([[log_size(size) for size in (0, 1, 3, 64, 50257, 2**30)]])
    assert (sizes >= 0).all() and (sizes <= 1).all()
    assert sizes[0].diff().ge(0).all()
    norms = encode_magnitude(sizes.mT).norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones(6))


def test_every_node_has_features_of_one_norm():
    model = nn.Sequential(
        nn.Conv2d(3, 70, 5, stride=2), nn.BatchNorm2d(70), nn.ReLU(), nn.Flatten(), nn.Linear(280, 3)
    )
    graph = trace(model, torch.ones(1, 3, 8, 8))
    data = graph.to_pyg()
    assert data.x.shape == (len(graph.nodes), FEATURES)
    torch.testing.assert_close(data.x.norm(dim=-1), torch.full((len(graph.nodes),), math.sqrt(FEATURES / 2)))
    assert data.param_index.tolist() == [spec.node for spec in graph.params]
    assert (data.role > 0).nonzero()[:, 0].tolist() == sorted(data.param_index.tolist())


def test_long_range_edges_run_both_ways():
    data = to_pyg(chain(40))
    found = {
        (int(target - source), int(kind))
        for (source, target), kind in zip(data.edge_index.mT, data.edge_type, strict=True)
    }
    forwards = {(distance, number) for number, distance in enumerate(HOPS)}
    backwards = {(-distance, number + len(HOPS)) for distance, number in forwards}
    assert found == forwards | backwards
    assert data.edge_type.unique().tolist() == list(range(EDGE_TYPES))


def test_dense_graphs_leave_far_hops_out():
    """Every node reads all before it: pairs grow quadratically, edges must not."""
    count = 400
    nodes = tuple(Node(index=i, kind="add", shape=(2, 8)) for i in range(count))
    edges = tuple(Edge(max(i - back, 0), i, back - 1) for i in range(1, count) for back in range(1, 13))
    data = to_pyg(ComputationGraph(nodes=nodes, edges=edges, params=()))
    assert data.edge_index.shape[1] <= MAX_EDGES_PER_NODE * count
    assert data.edge_type.unique().tolist()[:1] == [0]


@pytest.mark.parametrize("count", [0, 1])
def test_graphs_without_edges(count):
    data = to_pyg(chain(count))
    assert data.num_nodes == count
    assert data.edge_index.shape == (2, 0)
