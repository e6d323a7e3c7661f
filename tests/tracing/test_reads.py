"""What a forward pass asks of its tensors, or does to them behind the dispatcher's back."""

import math
from functools import partial

import pytest
import torch
import torch.ao.quantization as quantization
import torch.nn.functional as F
from torch import nn

from ghn.errors import TraceError
from ghn.tracing.trace import trace

X = torch.randn(6, 8)


class Net(nn.Module):
    """Two layers, and something in between."""

    def __init__(self, between=lambda self, h: h):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)
        self.between = between

    def forward(self, x):
        return self.last(self.between(self, self.first(x)))


PLAIN = trace(Net(), X)


def with_autocast(self, h):
    with torch.autocast(h.device.type, enabled=False):
        return h * 1.0


def if_autocast(self, h):
    return (
        h.to(torch.get_autocast_dtype(h.device.type)) if torch.is_autocast_enabled(h.device.type) else h * 1.0
    )


def with_generator(self, h):
    generator = torch.Generator(device=h.device).manual_seed(0)
    return h * torch.rand(h.shape, generator=generator, device=h.device)


def with_a_large_draw(self, h):
    generator = torch.Generator(device=h.device).manual_seed(0)
    return h * torch.rand(2200, 2200, generator=generator, device=h.device)[: len(h), :8]


def on_one_device(self, h):
    if h.device != self.first.weight.device or h.is_meta or h.get_device() != self.last.bias.get_device():
        raise ValueError(f"{h.device} and {self.first.weight.device}")
    return h * 1.0


def moved(self, h):
    return h.cpu().to(h.device) * torch.ones(8).to(self.last.weight.device)


def in_a_device_context(self, h):
    with torch.device(h.device):
        return h * torch.ones(8)


PLACES = (
    with_autocast,
    if_autocast,
    with_generator,
    with_a_large_draw,
    on_one_device,
    moved,
    in_a_device_context,
)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("between", PLACES)
def test_a_forward_pass_may_ask_where_it_is(between, device):
    with torch.device(device):
        model = Net(between)
    assert [spec.role for spec in trace(model, X).params] == [spec.role for spec in PLAIN.params]


def test_places_are_honest_again_afterwards():
    trace(Net(on_one_device), X)
    assert torch.ones(1, device="meta").device.type == "meta"
    assert torch.ones(1, device="meta").is_meta


class MaxNorm(nn.Linear):
    def forward(self, x):
        self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=1.0)
        return super().forward(x)


class ClampedInPlace(nn.Linear):
    def forward(self, x):
        self.weight.data.clamp_(-0.1, 0.1)
        self.weight.data[0] = 0
        self.bias.data *= 0.5
        return super().forward(x)


class FromTheFirstBatch(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("done", torch.tensor(False))
        self.register_buffer("mean", torch.zeros(sizes[0]))

    def forward(self, x):
        if not self.done:
            self.bias.data = -super().forward(x).mean(0)
            self.mean.data = x.mean(0)
            self.done.fill_(True)
        return super().forward(x - self.mean)


@pytest.mark.parametrize("layer", [MaxNorm, ClampedInPlace, FromTheFirstBatch])
def test_assignments_to_data_leave_the_model_and_the_roles(layer):
    torch.manual_seed(0)
    model = nn.Sequential(layer(8, 8), nn.ELU(), layer(8, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = trace(model, X)
    assert [(spec.role, spec.axes) for spec in graph.params] == 2 * [
        ("linear", ("out", "in")),
        ("bias", ("channel",)),
    ]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


def test_a_parameter_that_changes_its_shape_is_refused():
    model = Net(lambda self, h: setattr(self.last.weight, "data", self.last.weight.data[:2]) or h)
    with pytest.raises(
        TraceError, match=r"replaces the \.data of a tensor of shape \(4, 8\) by one of shape \(2, 8\)"
    ):
        trace(model, X)
    assert model.last.weight.shape == (4, 8)


class Counting(Net):
    """Writes into buffers in all the ways there are."""

    def __init__(self):
        super().__init__()
        self.register_buffer("counts", torch.zeros(3))
        self.register_buffer("table", torch.zeros(2, 3))
        self.kept = [torch.zeros(2)]

    def forward(self, x):
        self.counts[0] += 1
        self.counts.view(-1).add_(1)
        self.table[:, 1] = 5
        torch.add(self.table, 1, out=self.table)
        self.table.copy_(torch.ones(2, 3))
        self.kept[0].add_(1)
        torch._foreach_add_([self.counts, self.kept[0]], 1.0)
        return super().forward(x) + toy_normalize_and_count(x, self.counts)[:, :1]


@torch.library.custom_op("ghn_tests::normalize_and_count", mutates_args={"count"})
def toy_normalize_and_count(x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    count.add_(1)
    return x / x.norm(dim=1, keepdim=True)


@toy_normalize_and_count.register_fake
def _(x, count):
    return torch.empty_like(x)


def test_buffers_are_not_written():
    model = Counting()
    assert trace(model, X).coverage() == 1.0
    assert model.counts.sum() == model.table.sum() == model.kept[0].sum() == 0


class Between(nn.Module):
    def forward(self, h):
        return toy_normalize_and_count(h, torch.zeros(()))


def test_an_operation_that_writes_an_argument_returns_its_own_result():
    graph = trace(nn.Sequential(nn.Linear(8, 6), Between(), nn.Linear(6, 2)), X)
    shapes = [node.shape for node in graph.nodes if node.kind not in ("parameter", "output")]
    assert shapes == [(6, 8), (6, 6), (6, 6), (6, 2)]


@pytest.mark.filterwarnings("ignore")
def test_quantization_aware_training_has_the_roles_of_training():
    def net():
        layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)
        return nn.Sequential(quantization.QuantStub(), *layers, quantization.DeQuantStub()).train()

    plain, aware = net(), net()
    aware.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    aware, images = quantization.prepare_qat(aware), torch.randn(2, 3, 6, 6)
    expected, found = trace(plain, images), trace(aware, images)
    assert [(spec.name, spec.role, spec.axes) for spec in found.params] == [
        (spec.name, spec.role, spec.axes) for spec in expected.params
    ]


class Ragged(nn.Module):
    def __init__(self, layout=torch.jagged):
        super().__init__()
        self.layout, self.first, self.last = layout, nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, first, second):
        rows = torch.nested.nested_tensor([first, second], layout=self.layout)
        return self.last(torch.relu(self.first(rows)))


class RaggedAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads, self.out = nn.Linear(8, 24), nn.Linear(8, 4)

    def forward(self, rows):
        heads = [part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.heads(rows).chunk(3, -1)]
        return self.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(-2))


def test_ragged_attention_is_attention():
    rows = torch.nested.nested_tensor([torch.randn(3, 8), torch.randn(5, 8)], layout=torch.jagged)
    graph = trace(RaggedAttention(), rows)
    (attention,) = graph.attentions
    assert attention.heads == 2
    assert [spec.role for spec in graph.params] == ["linear", "bias"] * 2


def test_ragged_tensors_of_the_other_layout_are_refused():
    with pytest.raises(TraceError, match=r"pass layout=torch\.jagged"):
        trace(Ragged(torch.strided), (torch.randn(3, 8), torch.randn(5, 8)))


def test_ragged_sizes_are_numbers():
    graph = trace(Ragged(), (torch.randn(3, 8), torch.randn(5, 8)))
    assert [spec.role for spec in graph.params] == ["linear", "bias", "linear", "bias"]
    assert all(type(size) is int for node in graph.nodes for size in node.shape)
    assert next(node.shape for node in graph.nodes if node.kind == "relu") == (2, 8, 16)
    graph.to_pyg()


class Equalize:
    """Progressive GANs' learning rates, as re-implementations write them."""

    def __init__(self, name="weight"):
        self.name = name

    def __call__(self, module, inputs):
        weight = getattr(module, f"{self.name}_orig")
        setattr(module, self.name, weight * math.sqrt(2 / weight[0].numel()))


def _set_weight(name, module, inputs):
    module.weight = module.weight_orig * 2


def hooked(layer, hook):
    layer.register_parameter("weight_orig", nn.Parameter(layer._parameters.pop("weight").data))
    layer.register_forward_pre_hook(hook)
    return layer


@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize("hook", [Equalize(), partial(_set_weight, "weight")], ids=["object", "partial"])
def test_hooks_that_compute_weights_run(hook, ran):
    model = nn.Sequential(hooked(nn.Linear(8, 32), hook), nn.ReLU(), hooked(nn.Linear(32, 4), hook))
    if ran:
        model(X)
    before = [set(vars(layer)) for layer in model]
    roles = {spec.name: spec.role for spec in trace(model, X).params}
    assert roles["0.weight_orig"] == roles["2.weight_orig"] != "unknown"
    assert [set(vars(layer)) for layer in model] == before


def test_hooks_with_parameters_of_their_own_run():
    adapted = nn.Linear(8, 8)
    adapted.add_module("adapter", nn.Linear(8, 8, bias=False))
    adapted.register_forward_hook(lambda module, args, result: result + module.adapter(args[0]))
    adapted.register_forward_hook(lambda module, args, result: seen.append(result))
    seen = []
    graph = trace(nn.Sequential(adapted, nn.Linear(8, 2)), X)
    assert graph.coverage() == 1.0
    assert seen == []


def test_hooks_that_fail_are_named_by_the_error():
    def broken(module, inputs):
        raise KeyError("weights")

    with pytest.raises(TraceError, match="has no attribute 'weight'"):
        trace(hooked(nn.Linear(8, 8), broken), X)


class Force(nn.Module):
    """The gradient of an energy, as force fields have it."""

    def __init__(self):
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
        self.scale = nn.Linear(8, 8)

    def forward(self, x):
        with torch.enable_grad():
            x = x.clone().requires_grad_(True)
            return self.scale(torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0])


def test_gradients_that_a_forward_pass_takes_have_the_shapes_of_its_inputs():
    graph = trace(Force(), X)
    assert [spec.role for spec in graph.params] == ["linear", "bias"] * 3
    assert [node.shape for node in graph.nodes if node.kind == "other"] == [(6, 8)]


def _one_step(self, h):
    """Parameters after a step of gradient descent are still what they were."""
    parameters = dict(self.first.named_parameters())

    def loss(parameters):
        return torch.func.functional_call(self.first, parameters, (h,)).square().mean()

    gradients = torch.func.grad(loss)(parameters)
    moved = {name: value - 0.1 * gradients[name] for name, value in parameters.items()}
    return torch.func.functional_call(self.first, moved, (h,))


def _one_step_by_autograd(self, h):
    weight, bias = self.first.parameters()
    gradients = torch.autograd.grad(self.first(h).square().mean(), (weight, bias), create_graph=True)
    return h @ (weight - 0.1 * gradients[0]).T + (bias - 0.1 * gradients[1])


FUNCTIONALS = {
    "grad": lambda self, h: torch.func.grad(lambda z: self.last(z).sum())(h),
    "vjp": lambda self, h: torch.func.vjp(self.first, h)[1](h)[0],
    "vmap": lambda self, h: torch.func.vmap(self.first)(h),
    "one step": _one_step,
    "one step by autograd": _one_step_by_autograd,
}


@pytest.mark.parametrize("between", FUNCTIONALS.values(), ids=FUNCTIONALS)
def test_functional_transforms_leave_the_roles(between):
    assert [spec.role for spec in trace(Net(between), X).params] == ["linear", "bias"] * 2


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (lambda self, h: h.sum().backward(), r"its forward calls backward\(\)"),
        (
            lambda self, h: torch.func.vmap(torch.func.grad(lambda z: self.last(z).sum()))(h),
            r"inside of torch\.vmap",
        ),
        (lambda self, h: h.grad_fn.metadata, "Check that the model itself runs"),
        (lambda self, h: h @ torch.ones(3, 3), "Check that the model itself runs on these inputs"),
    ],
)
def test_advice_fits_the_failure(between, message):
    with pytest.raises(TraceError, match=message) as error:
        trace(Net(between), X)
    assert "Pass inputs=" not in str(error.value)


def test_advice_about_inputs_where_the_call_itself_fails():
    with pytest.raises(TraceError, match=r"TypeError.*at or after operation 'none'.*Pass inputs="):
        trace(Net(), (X, X))
