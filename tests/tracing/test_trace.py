"""Traced graphs are exactly the ones a person would draw: every node, every edge, every slot."""

import gc
from collections import Counter
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn.errors import ModelError, TraceError
from ghn.graph.graph import ComputationGraph
from ghn.tracing.trace import trace

IMAGE, SEQUENCE, VECTOR = torch.ones(2, 3, 8, 8), torch.ones(2, 5, 8), torch.ones(2, 8)
TOKENS = torch.zeros(2, 5, dtype=torch.long)


def arrows(graph: ComputationGraph) -> set[str]:
    """Edges as text: parameters by name, operations by kind, numbered where a kind occurs more than once."""
    total, seen, labels = Counter(node.kind for node in graph.nodes), Counter(), []
    for node in graph.nodes:
        seen[node.kind] += 1
        number = "" if total[node.kind] == 1 else seen[node.kind]
        labels.append(node.param or f"{node.kind}{number}")
    return {f"{labels[edge.source]} > {labels[edge.target]}:{edge.slot}" for edge in graph.edges}


def drawn(*chains: str) -> set[str]:
    """Edges of chains written ``a > b:0 > c:1``; the slot says where an arrow enters, 0 if left out."""
    edges = set()
    for chain in chains:
        links = [link.partition(":") for link in chain.split(" > ")]
        edges |= {f"{source[0]} > {target[0]}:{target[2] or 0}" for source, target in pairwise(links)}
    return edges


def affine(name: str, node: str) -> tuple[str, str]:
    """Arrows of a layer's weight and bias."""
    return f"{name}.weight > {node}:1", f"{name}.bias > {node}:2"


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(F.relu(self.norm(self.conv1(x))))


class Attention(nn.Module):
    def __init__(self, mixed):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.mixed = mixed

    def forward(self, x):
        heads = (layer(x).view(2, 5, 2, 4) for layer in (self.query, self.key, self.value))
        return self.out(self.mixed(*heads).reshape(2, 5, 8))


def fused(query, key, value):
    mixed = F.scaled_dot_product_attention(*(heads.transpose(1, 2) for heads in (query, key, value)))
    return mixed.transpose(1, 2)


def written_out(query, key, value):
    query, key, value = (heads.transpose(1, 2) for heads in (query, key, value))
    return ((query @ key.transpose(-1, -2) / 2).softmax(-1) @ value).transpose(1, 2)


def as_einsums(query, key, value):
    scores = torch.einsum("b i h d, b j h d -> b h i j", query, key) / 2
    return torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), value)


class InPlace(nn.Module):
    """The second layer's result is written into a view of the first one's."""

    def __init__(self):
        super().__init__()
        self.whole, self.part = nn.Linear(8, 8), nn.Linear(4, 4)

    def forward(self, x):
        hidden = self.whole(x)
        hidden.relu_()
        hidden[:, :4].copy_(self.part(hidden[:, 4:]))
        return hidden


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(self.embed(tokens))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn, self.head = kind(8, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Einsum(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.Parameter(torch.ones(4, 8, 6))

    def forward(self, x):
        return torch.einsum("bd,hde->bhe", x, self.heads)


class RMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.gain


def test_residual_block():
    assert arrows(trace(Residual(), IMAGE)) == drawn(
        "input > conv1 > batch_norm > relu > conv2 > add:1 > output",
        "input > add:0",
        "conv1.weight > conv1:1",
        "norm.weight > batch_norm:1",
        "norm.bias > batch_norm:2",
        *affine("conv2", "conv2"),
    )


@pytest.mark.parametrize("mixed", [fused, written_out, as_einsums])
def test_attention(mixed):
    """Written out with a softmax, attention is the same node as the fused operation, with the same facts."""
    graph = trace(Attention(mixed), SEQUENCE)
    (attention,) = graph.attentions
    assert (attention.heads, attention.width) == (2, 4)
    assert attention.names == {"query.weight", "key.weight", "value.weight", "out.weight"}
    assert arrows(graph) == drawn(
        "input > linear1 > attention:0 > linear4 > output",
        "input > linear2 > attention:1",
        "input > linear3 > attention:2",
        *affine("query", "linear1"),
        *affine("key", "linear2"),
        *affine("value", "linear3"),
        *affine("out", "linear4"),
    )


def test_in_place_operations_and_views():
    assert arrows(trace(InPlace(), VECTOR)) == drawn(
        "input > linear1 > relu > linear2 > copy:1 > output",
        "relu > copy:0",
        *affine("whole", "linear1"),
        *affine("part", "linear2"),
    )


def test_tied_embedding_is_one_parameter_with_both_names():
    graph = trace(Tied(), TOKENS)
    assert arrows(graph) == drawn(
        "input > embedding:1 > linear > output", "embed.weight > embedding:0", "embed.weight > linear:1"
    )
    (spec,) = graph.params
    assert spec.names == ("embed.weight", "head.weight")
    assert (spec.role, spec.axes) == ("embedding", ("table", "channel"))


def test_shared_module_called_twice():
    assert arrows(trace(Twice(), VECTOR)) == drawn(
        "input > linear1 > tanh > linear2 > output", *affine("layer", "linear1"), *affine("layer", "linear2")
    )


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent(kind, gates):
    graph = trace(Recurrent(kind), SEQUENCE)
    assert arrows(graph) == drawn(
        "input > recurrent > linear > output",
        "rnn.weight_ih_l0 > recurrent:2",
        "rnn.weight_hh_l0 > recurrent:3",
        "rnn.bias_ih_l0 > recurrent:4",
        "rnn.bias_hh_l0 > recurrent:5",
        *affine("head", "linear"),
    )
    into, hidden = graph.params[:2]
    assert (into.role, into.axes, into.groups) == ("recurrent_input", ("out", "in"), gates)
    assert (hidden.role, hidden.axes, hidden.groups) == ("recurrent_hidden", ("out", "in"), gates)


def test_einsum():
    graph = trace(Einsum(), VECTOR)
    assert arrows(graph) == drawn("input > einsum:1 > output", "heads > einsum:2")
    assert graph.params[0].axes == ("out", "in", "out")


def test_written_out_rms_norm_is_one_node():
    graph = trace(nn.Sequential(RMSNorm(), nn.Linear(8, 8)), VECTOR)
    assert arrows(graph) == drawn(
        "input > rms_norm > linear > output", "0.gain > rms_norm:1", *affine("1", "linear")
    )
    assert graph.params[0].role == "norm_weight"


def test_nodes_are_in_topological_order_and_know_their_module():
    graph = trace(nn.Sequential(Residual(), nn.Flatten(), nn.Linear(192, 2)), IMAGE)
    assert [node.index for node in graph.nodes] == list(range(len(graph.nodes)))
    assert all(edge.source < edge.target for edge in graph.edges)
    modules = {node.kind: node.module for node in graph.nodes}
    assert (modules["batch_norm"], modules["linear"]) == ("0.norm", "2")
    conv = next(node for node in graph.nodes if node.kind == "conv")
    assert conv.attributes["kernel"] == (3, 3)
    assert conv.attributes["stride"] == (1, 1)
    assert conv.shape == (2, 3, 8, 8)


def test_unsimplified_graph_keeps_shape_operations():
    kinds = Counter(node.kind for node in trace(Attention(fused), SEQUENCE, simplify=False).nodes)
    assert kinds["shape"] >= 8
    assert kinds["linear"] == 4


def test_garbage_collection_goes_on_after_a_trace():
    assert gc.isenabled()
    trace(nn.Linear(2, 3), torch.randn(1, 2))
    assert gc.isenabled()
    with pytest.raises(TraceError):
        trace(nn.Linear(2, 3), torch.randn(1, 5))
    assert gc.isenabled()


@pytest.mark.parametrize("model", ["resnet18", None, nn.Linear, torch.ones(2)])
def test_what_is_no_module_is_refused(model):
    with pytest.raises(ModelError, match=r"expected a torch\.nn\.Module, got \w+; ghn\.load_model makes one"):
        trace(model, torch.ones(2))


def test_inputs_on_the_meta_device_stay_the_callers():
    inputs = {"input": torch.ones(2, 8, device="meta")}
    kept = inputs["input"]
    for _ in range(2):
        assert trace(nn.Linear(8, 4), inputs).coverage() == 1
    assert inputs["input"] is kept
