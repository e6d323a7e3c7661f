"""Rules of biases, weights of normalizations, scales: where they act, where not, and what they say."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ghn.base import decisions
from ghn.base.rules.batch_norm_bias import BatchNormBias
from ghn.base.rules.last_norm import LastNorm
from ghn.hypernetwork import GHN
from ghn.models import load_model
from ghn.tracing.trace import trace

LEAST = BatchNormBias().least_norms
GPT = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 32}


def decided(spec, **kwargs):
    return decisions(trace(load_model(spec, device="meta", **kwargs)))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("timm:test_vit", set()),  # its positions are such a constant
        ("timm:mixer_s32_224", {"stem.proj.bias"}),
        ("timm:test_convnext", {"stem.0.bias"}),
        ("timm:poolformer_s12", set()),  # normalized over places together, which keeps how bright each is
        ("torchvision:vgg11_bn", set()),
    ],
)
def test_stems_before_layer_normalizations_have_a_random_bias(model, expected):
    """A normalization over channels forgets the length of what a patch becomes, unless a constant is added."""
    made = decided(model)
    assert {name for name, decision in made.items() if decision.rule == "stem_bias"} == expected
    assert all(made[name].init.std == 0.5 and made[name].init.random for name in expected)


def mlp(*sizes: int) -> nn.Sequential:
    layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def test_biases_are_as_torch_draws_them_but_for_the_outputs():
    made = decisions(trace(mlp(8, 32, 32, 2), torch.randn(4, 8)))
    rules = [made[f"{index}.bias"].rule for index in (0, 2, 4)]
    assert rules == ["unnormalized_bias", "unnormalized_bias", "zero_shift"]
    assert made["0.bias"].init.std == pytest.approx(1 / math.sqrt(3 * 8))
    assert made["2.bias"].init.std == pytest.approx(1 / math.sqrt(3 * 32))


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
    made = decisions(trace(Members(), torch.randn(5, 8)))["bias"]
    assert made.rule == "zero_shift" and made.init.mean == 0 and not made.init.random


def biases(*layers: nn.Module, features: int = 8) -> dict[str, str]:
    """Rules of the biases of a network of such layers."""
    made = decisions(trace(nn.Sequential(*layers), torch.randn(4, features)))
    return {name: decision.rule for name, decision in made.items() if name.endswith("bias")}


def test_maps_before_batch_statistics_keep_zero_biases():
    found = biases(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    assert set(found.values()) == {"zero_shift"}


def test_maps_of_inputs_before_layer_normalizations_have_random_biases():
    block = (nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 32))
    found = biases(nn.Linear(8, 32), *block, *block, nn.LayerNorm(32), nn.Linear(32, 2))
    assert [name for name, rule in found.items() if rule == "input_bias"] == ["0.bias"]
    assert set(found.values()) == {"input_bias", "zero_shift"}
    first = decisions(trace(nn.Sequential(nn.Linear(8, 32), nn.LayerNorm(32)), torch.randn(4, 8)))[
        "0.bias"
    ].init
    assert first.std == pytest.approx(math.sqrt(2 / (8 + 32))) and first.distribution == "uniform"


def test_maps_of_inputs_beside_a_table_of_positions_keep_zero_biases():
    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map, self.norm, self.head = nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 2)
            self.places = nn.Parameter(torch.randn(1, 5, 16))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.map(x) + self.places))

    made = decisions(trace(Places(), torch.randn(3, 5, 8)))
    assert made["places"].rule != "zero_shift" and made["map.bias"].rule == "zero_shift"


def test_biases_behind_the_last_normalization_are_as_torch_draws_them():
    found = biases(
        nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
    )
    assert [name for name, rule in found.items() if rule == "unnormalized_bias"] == ["3.bias"]


@pytest.mark.parametrize(("layers", "bias"), [(LEAST - 1, 0.0), (LEAST, 1.0)])
def test_batch_normalizations_before_activations_let_most_pass_in_deep_networks(layers, bias):
    body = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU6())  # a stem, whose bias stays 0
    for _ in range(layers):
        body.extend([nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6()])
    body.extend([nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)])
    body.extend([nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 3)])
    graph = trace(body, torch.zeros(2, 3, 8, 8))
    made = decisions(graph)
    means = {entry.name: made[entry.name].init.mean for entry in graph.params if entry.role == "norm_bias"}
    opened = {f"{3 * layer + 4}.bias": bias for layer in range(layers)}
    last = 3 * layers + 4
    assert means == {"1.bias": 0.0, **opened, f"{last}.bias": 0.0, f"{last + 2}.bias": 0.0}
    assert {made[name].rule for name in opened} == {"batch_norm_bias" if bias else "zero_shift"}


def test_what_all_logits_of_a_language_model_share_can_be_learned():
    """The bias of the last normalization alone; it starts at 0 as the others do."""
    made = decided("hf:gpt2", **GPT)
    biases = {name: made[name] for name in made if ".ln_" in name and name.endswith("bias")}
    assert all(decision.init.mean == 0 and not decision.init.random for decision in biases.values())
    last = {name for name, decision in biases.items() if decision.rule == "last_norm_bias"}
    assert last == {"transformer.ln_f.bias"} and len(biases) == 3
    assert biases["transformer.ln_f.bias"].init.std == 1


def test_tied_output_maps_see_smaller_activations_the_wider_they_are():
    means = {}
    for tied, width in ((True, 64), (True, 512), (False, 512)):
        made = decided("hf:gpt2", **{**GPT, "n_embd": width, "tie_word_embeddings": tied})
        assert made["transformer.ln_f.weight"].rule == "last_norm"
        assert made["transformer.h.0.ln_1.weight"].rule == "unit_multiplier"
        means[tied, width] = made["transformer.ln_f.weight"].init.mean
    factor = LastNorm().factor
    assert means == {(True, 64): factor, (True, 512): factor / 2, (False, 512): factor}


def test_cached_keys_and_values_make_no_last_operation():
    """A caller's own example may leave the cache on, which puts out what attention reads."""
    model = load_model("hf:gpt2", device="meta", n_embd=32, n_layer=2, n_head=2, vocab_size=50)
    tokens = {"input_ids": torch.zeros(1, 8, dtype=torch.long, device="meta")}
    last = [
        {name: decision.rule for name, decision in decisions(trace(model, example)).items()}
        for example in ({**tokens, "use_cache": True}, {**tokens, "use_cache": False})
    ]
    assert last[0] == last[1] and "last_norm" in last[0].values()


class Branch(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.enter, self.body, self.scale = nn.Conv2d(3, 8, 1), body, nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return (x + self.scale * self.body(x)).mean()


def test_layer_scales_of_branches_without_maps_start_at_zero():
    pooling, mapped = (
        decisions(trace(Branch(body), torch.zeros(1, 3, 8, 8)))["scale"]
        for body in (nn.AvgPool2d(3, 1, 1), nn.Conv2d(8, 8, 3, padding=1))
    )
    assert (pooling.rule, mapped.rule) == ("parameter_free_branch", "unit_multiplier")
    assert (pooling.init.mean, mapped.init.mean) == (0, 1)


class Decays(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.enter, self.decay = nn.Linear(4, shape[0]), nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.normalize(self.enter(x))
        return (x[..., None] * self.decay.exp()).sum() if self.decay.dim() == 2 else x * self.decay.exp()


def test_state_space_decays_are_those_of_s4d():
    sizes = {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 1, "vocab_size": 50}
    decay = decided("hf:mamba", **sizes)["backbone.layers.0.mixer.A_log"]
    assert decay.rule == "state_space_decay"
    torch.testing.assert_close(decay.init.mean, torch.tensor([1.0, 2, 3, 4]).log())


class Cosines(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.scale = nn.Linear(4, 8), nn.Linear(4, 8), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        a, b = (nn.functional.normalize(map(x), dim=-1) for map in (self.a, self.b))
        return a @ b.mT * self.scale.exp()


def test_temperatures_of_cosines_start_at_a_tenth():
    made = decisions(trace(Cosines(), torch.randn(3, 4)))["scale"]
    assert made.rule == "temperature" and made.init.mean == pytest.approx(math.log(10))


def test_vectors_start_at_their_neutral_value():
    model = nn.Sequential(
        *(parametrizations.weight_norm(nn.Linear(8, 8)), nn.PReLU(8), nn.LayerNorm(8), nn.Linear(8, 2))
    )
    made = decisions(trace(model, torch.zeros(2, 8)))
    found = {name: (decision.rule, decision.init.mean) for name, decision in made.items()}
    assert found["1.weight"] == ("prelu_slope", 0.25)
    assert found["2.weight"] == ("unit_multiplier", 1.0) and found["2.bias"] == ("zero_shift", 0.0)
    length = found["0.parametrizations.weight.original0"]
    assert length == ("weight_norm_length", pytest.approx(math.sqrt(1 / 3)))
