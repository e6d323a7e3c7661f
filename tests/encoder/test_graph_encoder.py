"""Laws of the encoder: graphs don't see each other, node numbers don't matter, memory grows with the edges."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from ghn.encoder import EncoderConfig, GraphEncoder
from ghn.errors import ConfigError
from ghn.tracing.trace import trace

PER_NODE = ("kind", "role", "x")


@pytest.fixture
def encoder() -> GraphEncoder:
    torch.manual_seed(0)
    return GraphEncoder(EncoderConfig(hidden=16, layers=2, heads=2)).double().eval()


@pytest.fixture
def graphs() -> list[Data]:
    image, vector = torch.ones(1, 3, 8, 8), torch.ones(2, 8)
    convolutional = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
    )
    dense = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3))
    data = [trace(convolutional, image).to_pyg(), trace(dense, vector).to_pyg()]
    for graph in data:
        graph.x = graph.x.double()
    return data


def test_a_batch_of_graphs_equals_the_graphs_alone(encoder, graphs):
    together = encoder(Batch.from_data_list(graphs))
    torch.testing.assert_close(together, torch.cat([encoder(graph) for graph in graphs]))


def test_renumbering_nodes_permutes_embeddings(encoder, graphs):
    for graph in graphs:
        order = torch.randperm(graph.num_nodes, generator=torch.Generator().manual_seed(1))
        place = order.argsort()
        renumbered = graph.clone()
        for name in PER_NODE:
            renumbered[name] = graph[name][order]
        renumbered.edge_index = place[graph.edge_index]
        torch.testing.assert_close(encoder(renumbered), encoder(graph)[order])


def test_distance_and_direction_of_edges_matter(encoder, graphs):
    graph = graphs[0]
    turned = graph.clone()
    turned.edge_type = graph.edge_type.flip(0)
    assert not torch.allclose(encoder(turned), encoder(graph))


def test_embeddings_of_equal_layers_differ_by_place(encoder):
    data = trace(nn.Sequential(*(nn.Linear(8, 8) for _ in range(4))), torch.ones(2, 8)).to_pyg()
    data.x = data.x.double()
    embeddings = encoder(data)[data.param_index][::2]
    assert torch.pdist(embeddings).min() > 1e-3


@pytest.mark.parametrize("sizes", [{"hidden": 10, "heads": 4}, {"layers": 0}, {"hidden": -4}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ConfigError, match="heads must divide hidden"):
        EncoderConfig(**sizes)


LARGEST = """
import resource, torch
from ghn.encoder import EncoderConfig, GraphEncoder
from ghn.graph.features import to_pyg
from ghn.graph.graph import ComputationGraph, Edge, Node, ParamSpec

count = 18_000
# Like a transformer: two of three nodes are parameters, operations read their neighbour and one from six before.
nodes, edges, params, previous = [], [], [], []
for index in range(count):
    if index % 3:
        name = f"p{index}"
        nodes.append(Node(index=index, kind="parameter", shape=(64, 64), param=name))
        params.append(ParamSpec(names=(name,), shape=(64, 64), role="linear", axes=("out", "in"), node=index))
    else:
        nodes.append(Node(index=index, kind="linear", shape=(1, 16, 64)))
        edges += [Edge(index - back, index, back) for back in (1, 2, 3, 18) if back <= index]
graph = ComputationGraph(nodes=tuple(nodes), edges=tuple(sorted(edges)), params=tuple(params))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = to_pyg(graph)
with torch.set_grad_enabled(GRADIENTS):
    GraphEncoder(EncoderConfig())(data)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20, data.edge_index.shape[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("gradients", [False, True])
def test_the_largest_graph_fits_in_2_gib(gradients):
    """The largest model of transformers has 18,000 nodes; run alone, to measure the peak of this alone."""
    code = LARGEST.replace("GRADIENTS", str(gradients))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak_gib, _edges = done.stdout.split()
    assert float(peak_gib) < 2
