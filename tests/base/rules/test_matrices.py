"""Rules of matrices and kernels: where they act, where not, and what they say."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghn.base import contexts, decisions, in_scheme
from ghn.base.context import fans
from ghn.base.rules.conv_batch_norm import ConvBatchNorm
from ghn.base.rules.gains import DEFAULT_GAIN
from ghn.base.rules.unnormalized_chain import ACTIVATION_GAINS, UnnormalizedChain
from ghn.base.schemes import default_rules
from ghn.errors import ConfigError
from ghn.graph.graph import ParamSpec
from ghn.graph.ops import ACTIVATIONS
from ghn.hypernetwork import GHN
from ghn.models import load_model
from ghn.tracing.trace import trace

IMAGES = torch.zeros(2, 3, 16, 16)


def decided(model, inputs, **options):
    return decisions(trace(model, inputs), **options)


def mlp(*sizes, activation=nn.ReLU):
    layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), activation())]
    return nn.Sequential(*layers[:-1])


def spec(role: str, shape: tuple[int, ...], axes: str = "", groups: int = 1) -> ParamSpec:
    return ParamSpec(names=("p",), shape=shape, role=role, axes=tuple(axes.split()), groups=groups, node=0)


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(6, 10),
        nn.Conv2d(6, 10, 3),
        nn.Conv2d(6, 12, 3, groups=3),
        nn.Conv1d(6, 6, 5, groups=6),
    ],
    ids=repr,
)
def test_fans_are_those_of_torch_for_one_group(module):
    rank = module.weight.dim() - 2
    inputs = torch.ones(2, 6, *(8,) * rank) if rank else torch.ones(2, 6)
    weight = next(spec for spec in trace(module, inputs).params if spec.name == "weight")
    groups = getattr(module, "groups", 1)
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
    assert fans(weight) == (fan_in, fan_out / groups)


def test_transposed_axes_swap_the_fans():
    assert fans(spec("linear", (4, 6), "in out")) == (4, 6)
    assert fans(spec("conv_transpose", (4, 6, 3, 3), "in out spatial spatial", 2)) == (18, 54)


@pytest.mark.parametrize(("scheme", "reads"), [("fan_in", 4), ("fan_out", 6), ("adaptive", 4)])
def test_schemes_of_one_fan_are_for_all_matrices(scheme, reads):
    model = nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4))
    made = decided(model, torch.zeros(2, 4), scheme=scheme)
    assert made["0.weight"].init.std == pytest.approx(math.sqrt(1 / 3 / reads))
    assert made["0.weight"].init.random and made["0.weight"].init.mean == 0
    rules = [made[f"{index}.weight"].rule for index in (0, 2, 4)]
    assert rules == (["fan_in", "unnormalized_chain", "classifier"] if scheme == "adaptive" else [scheme] * 3)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ConfigError, match="scheme must be one of"):
        in_scheme(default_rules(), "fan_up")


def conv_batch_norm(conv: nn.Conv2d) -> nn.Sequential:
    """A stem, then the convolution; both before batch normalizations."""
    stem = nn.Conv2d(3, conv.in_channels, 3)
    return nn.Sequential(stem, nn.BatchNorm2d(conv.in_channels), conv, nn.BatchNorm2d(conv.out_channels))


def test_wide_kernels_before_batch_statistics_follow_kaiming():
    made = decided(conv_batch_norm(nn.Conv2d(64, 64, 3)), IMAGES)
    assert made["0.weight"].rule == made["2.weight"].rule == "conv_batch_norm"
    assert made["2.weight"].init.std == pytest.approx(math.sqrt(2 / (64 * 9)))
    assert decided(nn.Conv2d(8, 8, 3), torch.zeros(1, 8, 8, 8))["weight"].rule != "conv_batch_norm"


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(96, 16, 1),
        nn.Conv2d(16, 96, 1),
        nn.Conv2d(48, 48, 3, groups=6),
        nn.Conv2d(99, 99, 3, groups=99),
    ],
    ids=str,
)
def test_narrow_kernels_before_batch_statistics_are_as_large_as_a_step(conv):
    """Adam moves every number by the learning rate, so at most by a matrix of rank one of that size."""
    model = conv_batch_norm(conv)
    graph = trace(model, IMAGES)
    std, p = decisions(graph)["2.weight"].init.std, contexts(graph)["2.weight"]
    assert std < math.sqrt(2 / p.fan_out)
    size = (int(p.fan_out), int(p.fan_in))
    step = torch.full(size, ConvBatchNorm().rate)
    random = std * torch.randn(*size, generator=torch.Generator().manual_seed(0))
    largest = [torch.linalg.matrix_norm(matrix, 2).item() for matrix in (step, random)]
    assert largest[0] == pytest.approx(largest[1], rel=0.25)
    # Where something else sees how large it is, the rule of He et al. keeps activations as large as they are.
    vars(p)["readers"] = frozenset({"batch_norm", "add"})
    assert ConvBatchNorm().init(p).std == pytest.approx(math.sqrt(2 / p.fan_out))


def test_stems_before_batch_statistics_follow_kaiming():
    made = decided(conv_batch_norm(nn.Conv2d(4, 4, 1)), IMAGES)
    assert made["0.weight"].init.std == pytest.approx(math.sqrt(2 / 36))


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_keep_their_state(kind):
    made = decided(kind(8, 32), torch.randn(5, 2, 8))
    assert made["weight_hh_l0"].rule == "recurrent_state" and made["weight_ih_l0"].rule == "fan_in"
    assert made["weight_hh_l0"].init.std == pytest.approx(1 / math.sqrt(32))
    assert made["weight_ih_l0"].init.std == pytest.approx(DEFAULT_GAIN / math.sqrt(8))


def test_recurrent_layers_beside_normalizations_follow_their_fan():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.norm = nn.RNN(8, 32), nn.LayerNorm(32)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.rnn(x)[0])

    assert decided(Model(), torch.randn(5, 2, 8))["rnn.weight_hh_l0"].rule == "fan_in"


@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU, nn.Tanh, nn.GELU])
@pytest.mark.parametrize("depth", [4, 10, 20])
def test_deep_and_shallow_networks_keep_the_same_share_of_their_inputs_size(activation, depth):
    torch.manual_seed(0)
    model = mlp(64, *[128] * depth, 128, activation=activation)
    x = torch.randn(256, 64)
    GHN().init_(model, inputs=x, learned=False)
    hidden = model[:-1](x).square().mean().sqrt() / math.sqrt(1 / 2 if activation is nn.ReLU else 1)
    assert 0.02 < hidden < 0.7


def test_chains_that_something_normalizes_follow_their_fan():
    plain, normalized = (
        decided(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), *norm, nn.Linear(16, 2)), torch.zeros(2, 8))
        for norm in ([], [nn.LayerNorm(16)])
    )
    assert plain["0.weight"].rule == "unnormalized_chain"
    assert normalized["0.weight"].rule == "mlp_mixer"


def test_normalizations_of_inputs_are_none():
    made = decided(nn.Sequential(nn.BatchNorm1d(8), *mlp(8, 16, 2)), torch.zeros(2, 8))
    assert made["1.weight"] == decided(mlp(8, 16, 2), torch.zeros(2, 8))["0.weight"]


def test_a_chain_behind_the_last_normalization_is_as_one_without():
    body = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    made = decided(nn.Sequential(*body, *mlp(8, 16, 16, 2)), IMAGES)
    alone = decided(mlp(8, 16, 16, 2), torch.zeros(2, 8))
    assert [made[f"{index}.weight"] for index in (5, 7)] == [alone[f"{index}.weight"] for index in (0, 2)]
    assert alone["0.weight"].rule == "unnormalized_chain"


def test_gains_are_those_that_keep_the_size_of_normal_numbers():
    z = torch.linspace(-9, 9, 100_001, dtype=torch.float64)
    density = (-z.square() / 2).exp() / math.sqrt(2 * math.pi) * (z[1] - z[0])
    functions = {"selu": F.selu, "elu": F.elu, "tanh": torch.tanh, "prelu": lambda z: F.leaky_relu(z, 0.25)}
    for kind, gain in ACTIVATION_GAINS.items():
        function = functions.get(kind) or getattr(F, kind)
        assert gain == pytest.approx(float((density * function(z).square()).sum() ** -0.5), rel=0.02), kind
    assert ACTIVATION_GAINS.keys() <= ACTIVATIONS


def test_shallow_chains_have_torchs_gain_and_no_chain_that_of_he():
    rule = UnnormalizedChain()
    assert rule.chain_gain(math.sqrt(2), 1) == pytest.approx(DEFAULT_GAIN)
    gains = [rule.chain_gain(math.sqrt(2), maps) for maps in range(2, 60)]
    assert gains == sorted(gains) and gains[-1] < math.sqrt(2)


class Loop(nn.Module):
    def __init__(self, turns: int) -> None:
        super().__init__()
        self.layer, self.turns = nn.Linear(16, 16), turns

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.turns):
            x = torch.tanh(self.layer(x))
        return x.sum()


def test_a_map_that_is_repeated_keeps_torchs_gain():
    once, often = (decided(Loop(turns), torch.randn(2, 16))["layer.weight"] for turns in (1, 8))
    assert once.init.std == pytest.approx(UnnormalizedChain().chain_gain(ACTIVATION_GAINS["tanh"], 1) / 4)
    assert often.init.std == pytest.approx(DEFAULT_GAIN / 4)
    assert (once.rule, often.rule) == ("unnormalized_chain", "fan_in")


@pytest.mark.parametrize(("stride", "sums"), [(1, 16 * 16), (2, 16 * 4), ((4, 2), 16 * 2)])
def test_transposed_convolutions_sum_fewer_points_the_larger_their_stride(stride, sums):
    model = nn.Sequential(nn.Conv2d(4, 16, 1), nn.ReLU(), nn.ConvTranspose2d(16, 4, 4, stride))
    made = decided(model, torch.randn(2, 4, 8, 8))["2.weight"]
    assert made.rule == "fan_in"
    assert made.init.std == pytest.approx(DEFAULT_GAIN / math.sqrt(sums))


def test_language_models_maps_before_rectifiers_keep_the_variance_of_what_they_read():
    sizes = {"n_embd": 64, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 16}
    made = decided(load_model("hf:gpt2", device="meta", **sizes), None)
    first, second = (made[f"transformer.h.0.mlp.{name}.weight"] for name in ("c_fc", "c_proj"))
    assert first.rule == "relu_maps" and first.init.std == pytest.approx(1 / math.sqrt(64))
    assert second.rule == "fan_in"
    vision = decided(load_model("timm:test_vit", device="meta"), None)
    assert vision["blocks.0.mlp.fc1.weight"].rule == "fan_in"


def test_classifiers_of_patches_make_logits_of_unit_variance():
    patches = decided(load_model("timm:test_vit", device="meta"), None)["head.weight"]
    plain = decided(load_model("timm:test_convnext", device="meta"), None)["head.fc.weight"]
    assert (patches.rule, plain.rule) == ("patch_classifier", "classifier")
    assert patches.init.std == pytest.approx(1 / 8)
    assert plain.init.std == pytest.approx(math.sqrt(1 / 3) / 8)


def test_mixers_follow_glorot():
    made = decided(load_model("timm:mixer_s32_224", device="meta"), None)
    weight = made["blocks.0.mlp_channels.fc1.weight"]
    assert weight.rule == "mlp_mixer" and weight.init.std == pytest.approx(math.sqrt(2 / (512 + 2048)))
    vision = decided(load_model("timm:test_vit", device="meta"), None)
    assert "mlp_mixer" not in {decision.rule for decision in vision.values()}


@pytest.mark.parametrize(
    ("model", "kwargs", "name"),
    [
        ("hf:mamba", {"hidden_size": 32}, "backbone.layers.0.mixer.out_proj.weight"),
        ("hf:rwkv", {"hidden_size": 32}, "rwkv.blocks.0.attention.output.weight"),
    ],
)
def test_language_models_without_attention_are_no_mixers(model, kwargs, name):
    """Their branches are damped as transformers' are."""
    graph = trace(load_model(model, device="meta", num_hidden_layers=2, vocab_size=50, **kwargs))
    p = contexts(graph)[name]
    assert not p.traits.has_attention and p.branches >= 2
    made = decisions(graph)[name]
    assert (made.rule, made.modifiers) == ("fan_in", ("residual_damping",))
    assert made.init.std == pytest.approx(math.sqrt(1 / 3 / p.spec.shape[1] / p.branches))


@pytest.mark.parametrize(
    ("model", "expected"),
    [("timm:test_vit", True), ("timm:coat_lite_tiny", True), ("timm:mixer_s32_224", False)],
)
def test_attention_counts_in_any_form(model, expected):
    """CoaT multiplies a softmax of its keys with its values, and that with its queries."""
    context = next(iter(contexts(trace(load_model(model, device="meta"))).values()))
    assert context.traits.has_attention is expected
