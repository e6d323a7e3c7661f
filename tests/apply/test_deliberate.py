"""What somebody chose stays; what a zoo or torch draws by default doesn't."""

import pytest
import torch
from torch import nn

import ghn
from ghn.apply.deliberate import deliberate
from ghn.models import load_model
from ghn.tracing.trace import trace


class Block(nn.Module):
    """A residual branch that ends in zeros, and what else people choose."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 8)
        nn.init.zeros_(self.last.weight)
        self.memory = nn.LSTM(8, 8)
        nn.init.zeros_(self.memory.bias_ih_l0)
        self.memory.bias_ih_l0.data[8:16] = 1.0
        self.policy = nn.Linear(8, 4)
        nn.init.orthogonal_(self.policy.weight, gain=0.01)
        nn.init.constant_(self.policy.bias, -4.0)
        self.norm, self.sharpness = nn.LayerNorm(8), nn.Parameter(torch.tensor(10.0))
        nn.init.zeros_(self.norm.weight)

    def forward(self, x):
        x = x + self.last(torch.relu(self.first(x)))
        return self.policy(self.norm(self.memory(x)[0])) * self.sharpness


CHOSEN = {"last.weight", "memory.bias_ih_l0", "policy.weight", "policy.bias", "sharpness"}
INPUTS = torch.ones(5, 2, 8)


def test_what_its_owner_chose_is_kept_and_reported():
    model = Block()
    before = {name: value.clone() for name, value in model.named_parameters()}
    report = ghn.init_(model, inputs=INPUTS)
    kept = {entry.name: entry.reason for entry in report.parameters if entry.fate == "kept"}
    assert kept.keys() == CHOSEN
    assert all(torch.equal(before[name], dict(model.named_parameters())[name]) for name in kept)
    assert kept["last.weight"].startswith("its owner set every entry to 0;")
    assert kept["memory.bias_ih_l0"].startswith("its owner set every entry to one of 2 values;")
    assert "keep_deliberate=False" in kept["policy.weight"]
    assert not any(torch.equal(before[name], model.get_parameter(name)) for name in ("norm.weight",))


def test_it_can_be_overridden():
    model = Block()
    report = ghn.init_(model, inputs=INPUTS, keep_deliberate=False)
    assert report.count("kept") == 0
    assert model.last.weight.std() > 0


def test_predictions_without_writing_leave_it_out():
    net, model = ghn.GHN.from_pretrained(), Block()
    names = {name for name, _ in model.named_parameters()}
    assert net.predict(model, INPUTS).keys() == names - CHOSEN
    assert net.predict(model, INPUTS, keep_deliberate=False).keys() == names


def test_models_of_one_trace_may_differ_in_what_was_chosen():
    chosen, plain = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2))
    nn.init.eye_(chosen[1].weight)
    assert ghn.init_(chosen, inputs=torch.ones(2, 4)).count("kept") == 1
    assert ghn.init_(plain, inputs=torch.ones(2, 4)).count("kept") == 0
    assert torch.equal(chosen[1].weight, torch.eye(4))


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(8, 8), nn.PReLU(), nn.BatchNorm1d(8), nn.Linear(8, 1)),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 1)),
        nn.Sequential(nn.Linear(8, 1), nn.Linear(1, 1)),
    ],
)
def test_defaults_of_torch_are_no_choice(model):
    assert deliberate(model, trace(model, torch.ones(2, 8))) == {}


def mlp():
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))


def test_a_branch_that_ends_in_zeros_keeps_its_zero_bias():
    class Adapter(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Linear(32, 8), nn.Linear(8, 32)
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

        def forward(self, x):
            return x + self.up(torch.relu(self.down(x)))

    model, x = nn.Sequential(Adapter(), Adapter()), torch.randn(2, 32)
    report = ghn.init_(model, inputs=x)
    assert report.count("kept") == 4
    assert torch.equal(model(x), x)


def test_a_single_bias_beyond_torchs_range_is_a_choice():
    for value, kept in ((-2.7, {"4.bias"}), (0.05, set())):
        model = mlp()
        model[4] = nn.Linear(64, 1)
        nn.init.constant_(model[4].bias, value)
        assert deliberate(model, trace(model, torch.ones(2, 32))).keys() == kept


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (nn.init.xavier_uniform_, "(Xavier, gain 1, uniform)"),
        (nn.init.xavier_normal_, "(Xavier, gain 1, normal)"),
        (lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"), "(He, gain 1.41, normal)"),
        (lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"), "(He, gain 1.41, uniform)"),
        (lambda weight: nn.init.orthogonal_(weight, 1.1), "(orthogonal, gain 1.1)"),
    ],
)
def test_how_the_owner_of_a_network_without_normalization_drew_it_is_kept(draw, told):
    torch.manual_seed(0)
    model, normal = mlp(), nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.Linear(64, 64))
    for module in (*model, *normal):
        if isinstance(module, nn.Linear):
            draw(module.weight)
            nn.init.zeros_(module.bias)
    found = deliberate(model, trace(model, torch.ones(2, 32)))
    assert found.keys() == {f"{index}.{entry}" for index in (0, 2, 4) for entry in ("weight", "bias")}
    assert told in found["0.weight"] and found["2.bias"].startswith("its owner set it to zero")
    assert deliberate(normal, trace(normal, torch.ones(2, 32))) == {}


@pytest.mark.parametrize("seed", range(5))
def test_what_was_predicted_before_is_no_choice(seed):
    torch.manual_seed(seed)
    convolutions = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.SiLU(), nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(512, 4)
    )
    for model, inputs in ((mlp(), torch.ones(2, 32)), (convolutions, torch.ones(2, 1, 8, 8))):
        for again in (seed, seed + 1):
            assert ghn.init_(model, inputs=inputs, seed=again).count("kept") == 0


@pytest.mark.parametrize(
    ("model", "kwargs"),
    [
        ("timm:resmlp_12_224", {}),  # its head is zero
        ("timm:test_resnet", {"zero_init_last": True}),
        ("timm:test_convnext", {}),
        ("hf:gpt2", {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 32}),
    ],
)
def test_zoos_are_what_the_rules_were_measured_against(model, kwargs):
    made = load_model(model, **kwargs)
    assert deliberate(made, trace(made)) == {}


def test_transformers_drawn_by_hand_as_in_the_zoos_are_predicted():
    model = nn.Sequential(nn.Embedding(50, 32), nn.TransformerEncoderLayer(32, 2, 64), nn.Linear(32, 50))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
    nn.init.normal_(model[1].linear2.weight, std=0.02 / 24**0.5)
    assert deliberate(model, trace(model, torch.ones(2, 5, dtype=torch.long))) == {}


class Kernel(nn.Module):
    """A map whose weights are of unit variance, what it makes being multiplied by a known number."""

    def __init__(self, number):
        super().__init__()
        self.weight, self.number = nn.Parameter(torch.randn(64, 64)), number

    def forward(self, x):
        return torch.relu(nn.functional.linear(x, self.weight) * self.number)


def test_large_matrices_are_meant_where_a_known_number_makes_up_for_it():
    """Numbers that are tied to the fan are divided out instead."""
    for number, kept in ((1.0, 0), (0.3, 1), (1 / 8, 0)):
        model = nn.Sequential(Kernel(number), Kernel(number))
        assert len(deliberate(model, trace(model, torch.ones(2, 64)))) == 2 * kept


@pytest.mark.parametrize("gate", [lambda p: p, torch.tanh])
def test_a_closed_branch_stays_closed(gate):
    class Gated(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.inner, self.gate = nn.Linear(8, 8), nn.Parameter(torch.tensor(value))

        def forward(self, x):
            return x + gate(self.gate) * self.inner(x)

    for value, kept in ((0.0, {"gate"}), (1e-5, set())):
        model = Gated(value)
        assert deliberate(model, trace(model, torch.ones(2, 8))).keys() == kept


def test_a_model_of_zeros_was_not_initialized():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    assert ghn.init_(model, inputs=torch.ones(2, 8)).count("kept") == 0
    assert model[0].weight.std() > 0


def test_nothing_is_known_on_the_meta_device():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    assert deliberate(model, trace(model, torch.ones(2, 8))) == {}
