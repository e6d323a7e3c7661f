"""Networks without normalization: how large maps, biases and tables start."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghn.decoder import plain
from ghn.decoder.scale import DEFAULT_GAIN, places, scale_of
from ghn.graph.ops import ACTIVATIONS
from ghn.graph.trace import trace
from ghn.hypernetwork import GHN


def rules(model, inputs):
    graph = trace(model, inputs)
    surroundings = places(graph)
    return {spec.name: scale_of(spec, surroundings[spec.name], "zoo") for spec in graph.params}


def mlp(*sizes, activation=nn.ReLU):
    layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), activation())]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU, nn.Tanh, nn.GELU])
@pytest.mark.parametrize("depth", [4, 10, 20])
def test_deep_and_shallow_networks_keep_the_same_share_of_their_inputs_size(activation, depth):
    torch.manual_seed(0)
    model = mlp(64, *[128] * depth, 128, activation=activation)
    x = torch.randn(256, 64)
    GHN().init_(model, inputs=x, learned=False)
    hidden = model[:-1](x).square().mean().sqrt() / math.sqrt(1 / 2 if activation is nn.ReLU else 1)
    assert 0.02 < hidden < 0.7


def test_gains_are_those_that_keep_the_size_of_normal_numbers():
    z = torch.linspace(-9, 9, 100_001, dtype=torch.float64)
    density = (-z.square() / 2).exp() / math.sqrt(2 * math.pi) * (z[1] - z[0])
    functions = {"selu": F.selu, "elu": F.elu, "tanh": torch.tanh, "prelu": lambda z: F.leaky_relu(z, 0.25)}
    for kind, gain in plain.ACTIVATION_GAINS.items():
        function = functions.get(kind) or getattr(F, kind)
        assert gain == pytest.approx(float((density * function(z).square()).sum() ** -0.5), rel=0.02), kind
    assert plain.ACTIVATION_GAINS.keys() <= ACTIVATIONS


def test_shallow_chains_have_torchs_gain_and_no_chain_that_of_he():
    assert plain.chain_gain(math.sqrt(2), 1) == pytest.approx(DEFAULT_GAIN)
    gains = [plain.chain_gain(math.sqrt(2), maps) for maps in range(2, 60)]
    assert gains == sorted(gains) and gains[-1] < math.sqrt(2)


def test_biases_are_as_torch_draws_them_but_for_the_outputs():
    found = rules(mlp(8, 32, 32, 2), torch.randn(4, 8))
    assert [found[f"{index}.bias"].random for index in (0, 2, 4)] == [True, True, False]
    assert found["0.bias"].spread == pytest.approx(1 / math.sqrt(3 * 8))
    assert found["2.bias"].spread == pytest.approx(1 / math.sqrt(3 * 32))


def test_biases_are_spread_evenly():
    model = mlp(2, 4096, 1)
    GHN().init_(model, inputs=torch.randn(4, 2), learned=False)
    bound = 1 / math.sqrt(2)
    bias = model[0].bias.detach()
    assert 0.99 * bound < bias.abs().max() <= bound
    assert float(bias.square().mean()) == pytest.approx(bound**2 / 3, rel=0.05)


class Members(nn.Module):
    """Biases behind a multiplication, which sums nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.head = nn.Linear(8, 16, bias=False), nn.Linear(16, 1)
        self.signs, self.bias = nn.Parameter(torch.ones(3, 1, 16)), nn.Parameter(torch.zeros(3, 1, 16))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.map(x) * self.signs + self.bias))


def test_biases_of_which_nothing_is_known_are_zero():
    found = rules(Members(), torch.randn(5, 8))["bias"]
    assert found.centre == 0 and not found.random


@pytest.mark.parametrize(("stride", "sums"), [(1, 16 * 16), (2, 16 * 4), ((4, 2), 16 * 2)])
def test_transposed_convolutions_sum_fewer_points_the_larger_their_stride(stride, sums):
    model = nn.Sequential(nn.Conv2d(4, 16, 1), nn.ReLU(), nn.ConvTranspose2d(16, 4, 4, stride))
    found = rules(model, torch.randn(2, 4, 8, 8))["2.weight"]
    assert found.spread == pytest.approx(DEFAULT_GAIN / math.sqrt(sums))


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_keep_their_state(kind):
    found = rules(kind(8, 32), torch.randn(5, 2, 8))
    assert found["weight_hh_l0"].spread == pytest.approx(1 / math.sqrt(32))
    assert found["weight_ih_l0"].spread == pytest.approx(DEFAULT_GAIN / math.sqrt(8))


def test_networks_with_normalization_keep_zero_biases():
    found = rules(
        nn.Sequential(nn.Linear(8, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 2)), torch.randn(4, 8)
    )
    assert not found["0.bias"].random and found["0.bias"].centre == 0


class Tokens(nn.Module):
    def __init__(self, reader: str) -> None:
        super().__init__()
        self.table, self.reader = nn.Embedding(20, 16), reader
        makers = {
            "gru": lambda: nn.GRU(16, 16, batch_first=True),
            "attention": lambda: nn.MultiheadAttention(16, 2, batch_first=True),
            "mlp": lambda: mlp(16, 32, 2),
        }
        self.body = makers[reader]()

    def forward(self, x: Tensor) -> Tensor:
        found = self.table(x)
        made = self.body(found, found, found) if self.reader == "attention" else self.body(found)
        return made[0] if isinstance(made, tuple) else made


@pytest.mark.parametrize(
    ("reader", "spread"), [("gru", 1.0), ("attention", 1.0), ("mlp", plain.TABLE_SPREAD)]
)
def test_tables_are_small_unless_recurrent_layers_or_attention_read_them(reader, spread):
    assert rules(Tokens(reader), torch.randint(20, (2, 5)))["table.weight"].spread == pytest.approx(spread)


class Sets(nn.Module):
    def __init__(self, pool) -> None:
        super().__init__()
        self.each, self.all, self.pool = mlp(2, 8, 8), mlp(8, 8, 1), pool

    def forward(self, x: Tensor) -> Tensor:
        return self.all(self.pool(self.each(x)))


@pytest.mark.parametrize(
    ("pool", "factor"),
    [
        (lambda x: x.sum(1), 4),
        (lambda x: x.mean(1), 1),
        (lambda x: x.sum(1) / 16, 1),
        (lambda x: (x.softmax(1) * x).sum(1), 1),
        (lambda x: x.amax(1), 1),
    ],
)
def test_what_reads_a_sum_of_many_is_smaller(pool, factor):
    found = rules(Sets(pool), torch.randn(3, 16, 2))
    gain = plain.chain_gain(math.sqrt(2), 4)
    assert found["all.0.weight"].spread == pytest.approx(gain / math.sqrt(8) / factor, rel=1e-3)
    end = DEFAULT_GAIN / math.sqrt(8) * (plain.SET_OUTPUT if factor > 1 else 1)
    assert found["all.2.weight"].spread == pytest.approx(end)


class Loop(nn.Module):
    def __init__(self, turns: int) -> None:
        super().__init__()
        self.layer, self.turns = nn.Linear(16, 16), turns

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.turns):
            x = torch.tanh(self.layer(x))
        return x.sum()


def test_a_map_that_is_repeated_keeps_torchs_gain():
    once, often = (rules(Loop(turns), torch.randn(2, 16))["layer.weight"].spread for turns in (1, 8))
    assert once == pytest.approx(plain.chain_gain(plain.ACTIVATION_GAINS["tanh"], 1) / 4)
    assert often == pytest.approx(DEFAULT_GAIN / 4)
