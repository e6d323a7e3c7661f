"""A parameter's role follows what it passes through before it meets an activation."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn.base import contexts, decisions
from ghn.tracing.trace import trace


class Own(nn.Module):
    """Parameters of given shapes, and what a forward pass does with them."""

    def __init__(self, forward, *shapes, buffers=()):
        super().__init__()
        self.compute = forward
        self.p = nn.ParameterList(nn.Parameter(torch.ones(shape)) for shape in shapes)
        for number, shape in enumerate(buffers):
            self.register_buffer(f"b{number}", torch.ones(shape))

    def forward(self, *inputs):
        return self.compute(*inputs, *self.p, *self.buffers())


X = torch.ones(4, 8)


def specs(forward, *shapes, inputs=X, buffers=()):
    return list(trace(Own(forward, *shapes, buffers=buffers), inputs).params)


def roles(forward, *shapes, **options):
    return [spec.role for spec in specs(forward, *shapes, **options)]


def rules(forward, *shapes, **options):
    graph = trace(Own(forward, *shapes), X, **options)
    return [decision.init for decision in decisions(graph).values()]


def softplus_inverse(value):
    return math.log(math.expm1(value))


@pytest.mark.parametrize(
    ("multiply", "shape", "centre"),
    [
        (lambda x, p: x * p.exp(), (8,), 0.0),
        (lambda x, p: x * (3 * p).exp(), (1, 8), 0.0),
        (lambda x, p: x / p.exp(), (8,), 0.0),
        (lambda x, p: x * F.softplus(p), (8,), softplus_inverse(1)),
        (lambda x, p: F.normalize(x) @ F.normalize(x).T * p.exp(), (), math.log(10)),
        (
            lambda x, p: p.clamp(max=4.6).exp() * (x / x.norm(dim=-1, keepdim=True)) @ F.normalize(x).T,
            (),
            math.log(10),
        ),
        (lambda x, p: F.normalize(x) @ F.normalize(x).T * F.softplus(p), (), 10.0),
        (lambda x, p: x @ x.T * p.exp(), (), 0.0),
        (lambda x, p: x * (1 + p), (8,), 0.0),
    ],
)
def test_multipliers_start_neutral_and_those_of_cosines_at_ten(multiply, shape, centre):
    (rule,) = rules(multiply, shape)
    assert rule.mean == pytest.approx(centre, abs=1e-6) and not rule.random


@pytest.mark.parametrize("link", [F.softplus, torch.exp, torch.sigmoid, torch.abs, torch.square, torch.relu])
def test_what_is_no_weight_by_itself_is_kept(link):
    (spec,) = specs(lambda x, w: F.linear(x, link(w)), (6, 8))
    assert spec.role == "unknown"
    assert "so it is no weight itself" in spec.reason


@pytest.mark.parametrize(
    "noise", [torch.randn_like, lambda w: torch.randn(w.shape), lambda w: torch.randn(6, 1) * torch.randn(8)]
)
def test_scales_of_noise_are_kept_and_means_are_weights(noise):
    mean, spread, bias, bias_spread = specs(
        lambda x, m, s, b, t: F.linear(x, m + s * noise(m), b + t * torch.randn_like(b)),
        (6, 8),
        (6, 8),
        (6,),
        (6,),
    )
    assert (mean.role, mean.axes) == ("linear", ("out", "in"))
    assert bias.role == "bias"
    assert spread.role == bias_spread.role == "unknown"
    assert spread.reason == bias_spread.reason == "random numbers multiply it: it is a scale of noise"


def test_noise_that_a_buffer_is_filled_with_counts_too():
    def forward(x, mean, spread, buffer):
        return F.linear(x, mean + spread * buffer.normal_())

    assert roles(forward, (6, 8), (6, 8), buffers=[(6, 8)]) == ["linear", "unknown"]


def test_masks_and_quantization_leave_a_weight_what_it_is():
    def forward(x, pruned, rounded, mask):
        quantized = rounded + ((rounded * 8).round().clamp(-8, 7) / 8 - rounded).detach()
        return F.linear(F.linear(x, pruned * mask), quantized)

    assert roles(forward, (8, 8), (8, 8), buffers=[(8, 8)]) == ["linear", "linear"]


def test_what_computes_weights_is_kept():
    def forward(x, code, first, bias, last):
        made = F.linear(F.relu(F.linear(code, first, bias)), last)
        return F.linear(x, made[:, :48].view(6, 8), made[0, 48:])

    assert roles(forward, (1, 4), (16, 4), (16,), (54, 16)) == ["unknown"] * 4
    assert (
        roles(lambda x, code, last: F.linear(x, F.linear(code, last).view(6, 8)), (1, 4), (48, 4))
        == ["unknown"] * 2
    )


def test_low_rank_factors_are_weights():
    base, right, left = specs(lambda x, w, a, b: F.linear(x, w + 2 * (b @ a)), (6, 8), (2, 8), (6, 2))
    assert [spec.role for spec in (base, right, left)] == ["linear"] * 3
    assert (right.axes, left.axes) == (("out", "in"), ("out", "in"))


def test_a_learned_query_that_goes_through_a_map_of_its_own():
    def forward(x, latent, weight, bias, norm):
        query = F.linear(F.layer_norm(latent, (8,), norm), weight, bias).expand(4, -1, -1)
        return torch.softmax(query @ x[:, None].mT, -1) @ x[:, None]

    found = specs(forward, (1, 2, 8), (8, 8), (8,), (8,))
    assert [spec.role for spec in found] == ["token", "linear", "bias", "norm_weight"]


def test_modulation_that_is_computed_from_a_code():
    def forward(x, code, scale, shift, bias):
        return x * (1 + F.linear(code, scale)) + F.linear(F.relu(code), shift, bias)

    assert roles(forward, (1, 4), (8, 4), (8, 4), (8,)) == ["token", "linear", "linear", "bias"]


@pytest.mark.parametrize("simplify", [True, False])
@pytest.mark.parametrize(
    ("forward", "shapes", "factor"),
    [
        (lambda x, w: F.linear(x, w * 0.01), [(64, 8)], 0.01),
        (lambda x, w: F.linear(x, w / 5 / 2), [(64, 8)], 0.1),
        (lambda x, w: F.linear(x, w * torch.tensor(0.25)), [(64, 8)], 0.25),
        (lambda x, w: F.linear(x, w) / 8**0.5, [(64, 8)], 8**-0.5),  # NTK
        (lambda x, w, b: (x @ w + b) * (2 / 8) ** 0.5, [(8, 64), (64,)], 0.5),
        (lambda x, w: (x @ w) / 8, [(8, 64)], 0.125),  # mean field
        (lambda x, w: F.linear(x / 8**0.5, w), [(64, 8)], 8**-0.5),
        (lambda x, w: F.linear(x, w) * 0.1, [(64, 8)], 1.0),  # a damped branch
        (lambda x, w: (F.linear(x, w) * 8**-0.5) @ x.T, [(8, 8)], 1.0),  # queries
        (lambda x, w: F.linear(x, w * 0.01 / w.norm(dim=1, keepdim=True)), [(64, 8)], 1.0),
    ],
)
def test_known_factors_are_divided_out(forward, shapes, factor, simplify):
    plain = rules(lambda x, *p: F.linear(x, p[0]) if p[0].shape[1] == 8 else x @ p[0], shapes[0])[0]
    graph = trace(Own(forward, *shapes), X, simplify)
    assert graph.params[0].factor == pytest.approx(factor)
    rule = decisions(graph)["p.0"].init
    if len(shapes) == 1:
        assert rule.std == pytest.approx(plain.std / factor, rel=0.8)


def test_factors_move_biases_as_well():
    weight, bias = specs(lambda x, w, b: F.linear(x, w * 0.1, b * 0.01), (6, 8), (6,))
    assert (weight.factor, bias.factor) == (0.1, 0.01)


@pytest.mark.parametrize(
    ("forward", "shape", "role", "axes"),
    [
        (lambda x, p: (x * p).sum(-1), (8,), "matrix", ("in",)),
        (lambda x, p: (x * p).sum(-1), (1, 8), "linear", ("one", "in")),
        (lambda x, p: (x.view(-1, 2, 4) * p).sum(dim=-1), (1, 2, 4), "expert", ("one", "expert", "in")),
        (lambda x, p: (x[:, None] * p).sum(-1), (6, 8), "linear", ("out", "in")),
        (lambda x, p: (x * p).sum(0), (8,), "scale", ("channel",)),
    ],
)
def test_a_multiplier_that_is_summed_over_its_own_axis_is_a_map(forward, shape, role, axes):
    (spec,) = specs(forward, shape)
    assert (spec.role, spec.axes) == (role, axes)


def test_scales_of_members_are_their_owners():
    def forward(x, inputs, weight, outputs, bias):
        return (x[:, None] * inputs) @ weight * outputs + bias

    found = specs(forward, (3, 8), (8, 6), (3, 6), (3, 6))
    assert [spec.role for spec in found] == ["unknown", "linear", "scale", "bias"]
    assert "members" in found[0].reason
    (looked_up,) = specs(lambda x, p: x * p[torch.tensor([0, 1, 2, 0])], (3, 8))
    assert looked_up.role == "unknown"


def test_gains_of_heads_are_neutral():
    (gain,) = rules(lambda x, p: F.scaled_dot_product_attention(*[x.view(1, 2, 4, 4) * p] * 3), (2, 1, 4))
    assert gain.mean == 1 and not gain.random


def test_a_decay_that_is_computed_from_parameters_alone_is_kept():
    assert roles(lambda x, p: x * torch.exp(-p.exp() * torch.arange(8)), (8,)) == ["unknown"]


@pytest.mark.parametrize(
    ("forward", "shapes"),
    [
        (lambda x, w, b: torch.bmm(x.expand(3, -1, -1), w) + b, [(3, 8, 6), (3, 1, 6)]),
        (lambda x, w, b: torch.einsum("bi,eio->beo", x, w) + b, [(3, 8, 6), (3, 6)]),
        (lambda x, w, b: (x @ w).view(-1, 3, 6) + b, [(8, 18), (3, 6)]),
        (lambda x, w, b: F.conv1d(x[:, None], w) + b, [(6, 1, 3), (6, 1)]),
        (lambda x, w, b: x.expand(3, -1, -1) @ w + b, [(8, 6), (3, 1, 6)]),  # of members that share a weight
    ],
)
def test_a_bias_has_a_number_for_each_output(forward, shapes):
    assert roles(forward, *shapes)[1] == "bias"


def test_a_table_of_positions_has_more():
    assert roles(lambda x, w, p: F.linear(x[None], w) + p, (8, 8), (4, 8))[1] == "position"


@pytest.mark.parametrize(
    ("forward", "shapes", "expected"),
    [
        (
            lambda x, v, g: F.linear(x, g * v / v.norm(dim=1, keepdim=True)),
            [(6, 8), (6, 1)],
            "weight_norm_scale",
        ),
        (
            lambda x, v, g: F.linear(x, g[:, None] * F.normalize(v, dim=1)),
            [(6, 8), (6,)],
            "weight_norm_scale",
        ),
        (lambda x, v, g: F.linear(x, v.sign() * g), [(6, 8), (6, 1)], "scale"),
        (lambda x, v, g: F.linear(x, v * g), [(6, 8), (1, 8)], "scale"),
        (lambda x, v, g: F.linear(x, v * g), [(6, 8), ()], "scale"),
        (lambda x, v, g: F.linear(x, v / g), [(6, 8), (6, 1)], "scale"),
    ],
)
def test_gains_of_weights_are_positive(forward, shapes, expected):
    weight, gain = specs(forward, *shapes)
    assert (weight.role, weight.axes, gain.role) == ("linear", ("out", "in"), expected)
    assert rules(forward, *shapes)[1].mean > 0


def test_factors_entry_by_entry_are_kept():
    assert roles(lambda x, a, b: F.linear(x, a * b), (6, 8), (6, 8)) == ["unknown", "unknown"]


def test_a_tensor_of_several_weights_is_kept():
    (flat,) = specs(lambda x, p: F.linear(x, p[:48].view(6, 8), p[48:]), (54,))
    assert flat.role == "unknown" and "several" in flat.reason


def test_a_packed_weight_is_one():
    (spec,) = specs(lambda x, p: torch.cat([F.linear(x, part) for part in p.chunk(3)], -1), (18, 8))
    assert (spec.role, spec.axes) == ("linear", ("out", "in"))


def test_flattened_kernels_know_their_axes():
    def forward(x, w):
        flat = w.view(1, 6, -1)
        return F.conv2d(x, F.batch_norm(flat, None, None, training=True).reshape(w.shape))

    (spec,) = specs(forward, (6, 3, 5, 5), inputs=torch.ones(1, 3, 9, 9))
    assert (spec.role, spec.axes) == ("conv", ("out", "in", "spatial", "spatial"))


@pytest.mark.parametrize(
    "forward",
    [
        lambda x, w, b: torch.sin(30 * F.linear(x, w, b)),
        lambda x, w, b: torch.cos(x @ w.T + b),
        lambda x, w, b: torch.cat([(2 * math.pi * F.linear(x, w)).sin(), b.expand(4, 8)], -1),
    ],
)
def test_frequencies_are_kept(forward):
    weight, *_ = specs(forward, (8, 8), (8,))
    assert weight.role == "unknown" and "frequency" in weight.reason


def test_networks_that_make_weights_are_kept():
    def forward(x, code, first, last, own):
        made = F.linear(F.relu(F.linear(code, first)), last)
        return F.linear(F.linear(x, made[0, :48].view(6, 8), made[0, 48:]), own)

    found = roles(forward, (16, 4), (54, 16), (2, 6), inputs=(X, torch.ones(1, 4)))
    assert found == ["unknown", "unknown", "linear"]


def test_a_codebook_is_kept():
    def forward(x, book):
        distances = x.square().sum(1, keepdim=True) - 2 * x @ book.T + book.square().sum(1)
        return F.embedding(distances.argmin(1), book)

    (spec,) = specs(forward, (16, 8))
    assert spec.role == "unknown" and "distances" in spec.reason


def test_points_and_slopes_are_kept():
    assert roles(lambda x, p: x @ p.T - p.square().sum(1), (5, 8)) == ["unknown"]
    assert roles(lambda x, p: (x @ p.T, p.square().sum()), (5, 8)) == ["linear"]  # a penalty
    assert roles(lambda x, p: (x[:, None] - p).square().sum(-1), (5, 8)) == ["unknown"]
    assert roles(lambda x, p: (x @ x.T - p * torch.rand(4, 4)).softmax(-1), (2, 1, 1)) == ["unknown"]


def test_a_matrix_whose_determinant_counts_is_kept():
    (spec,) = specs(lambda x, w: (x @ w, torch.linalg.slogdet(w)[1].expand(len(x))), (8, 8))
    assert spec.role == "unknown" and "determinant" in spec.reason


def test_what_is_only_returned_is_kept():
    linear, spread = specs(lambda x, w, s: (F.linear(x, w), s.exp()), (2, 8), (2,))
    assert (linear.role, spread.role) == ("linear", "unknown")


class Layers(nn.Module):
    """The same network, its biases added by the map or by an operation of their own."""

    def __init__(self, fused):
        super().__init__()
        self.fused = fused
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(8, 8)) for _ in range(3))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(8)) for _ in range(3))

    def forward(self, x):
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = F.linear(x, weight.T, bias) if self.fused else x @ weight + bias
            x = F.relu(x) if number < 2 else x
        return x


def test_a_bias_of_its_own_hides_no_rectifier():
    found = []
    for fused in (True, False):
        graph = trace(Layers(fused), X)
        found.append(decisions(graph))
        around = contexts(graph)
        assert around["weights.2"].is_input_or_output and not around["weights.1"].is_input_or_output
        assert around["weights.0"].readers == {"relu"} and around["weights.2"].readers == {"output"}
    assert found[0] == found[1]


def test_the_rectifier_behind_messages_is_seen():
    def forward(x, edges, weight, bias):
        messages = F.linear(x, weight)[edges[0]] * 0.5
        total = torch.zeros(4, 6).index_add_(0, edges[1], messages)
        return F.relu(total + bias)

    inputs = (X, torch.tensor([[0, 1, 2], [1, 2, 3]]))
    graph = trace(Own(forward, (6, 8), (6,)), inputs)
    assert contexts(graph)["p.0"].readers == {"relu"}
