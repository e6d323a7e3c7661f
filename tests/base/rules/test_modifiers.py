"""Modifiers: where they act, where not, and what they change."""

import math

import pytest
import torch
from torch import Tensor, nn

from ghn.base import contexts, decisions, default_rules
from ghn.base.context import CHARACTERS
from ghn.base.rules.gains import DEFAULT_GAIN
from ghn.base.rules.previous_token_output import PreviousTokenOutput
from ghn.base.rules.set_output import SetOutput
from ghn.base.rules.unnormalized_chain import UnnormalizedChain
from ghn.models import load_model
from ghn.tracing.trace import trace


def test_ends_of_residual_branches_are_damped_by_their_number():
    graph = trace(load_model("timm:test_vit", device="meta"))
    around = contexts(graph)
    branches = around["blocks.0.mlp.fc2.weight"].branches
    assert branches == 2 * sum(name.endswith("fc2.weight") for name in around)
    assert around["blocks.0.mlp.fc1.weight"].branches == 0
    free, damped = (
        decisions(graph, rules)["blocks.0.mlp.fc2.weight"].init.std
        for rules in (default_rules().without("residual_damping"), None)
    )
    assert damped == pytest.approx(free / math.sqrt(branches))


def test_the_shift_at_the_end_of_a_branch_is_damped_with_its_weight():
    made = decisions(trace(load_model("timm:cspdarknet53", device="meta")))
    weight, bias = (made[f"stages.1.blocks.0.conv2.bn.{kind}"] for kind in ("weight", "bias"))
    assert weight.init.mean == bias.init.mean < 0.5
    assert weight.modifiers == bias.modifiers == ("residual_damping",)


@pytest.mark.parametrize(("vocabulary", "share"), [(384, 1), (1024, 0.5), (4096, 0.4), (10**5, 0.4)])
def test_attention_starts_smaller_over_words_than_over_characters(vocabulary, share):
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 64, "n_positions": 16, "vocab_size": vocabulary}
    made = decisions(trace(load_model("hf:gpt2:AutoModelForCausalLM", device="meta", **sizes)))
    plain = math.sqrt(1 / 3 / 64)
    queries, output = (made[f"transformer.h.0.attn.{name}.weight"] for name in ("c_attn", "c_proj"))
    assert queries.init.std == pytest.approx(share * plain)
    assert ("word_attention" in queries.modifiers) == (share < 1)
    # Beside characters, heads look at the previous token, whose output is smaller.
    looks = vocabulary <= CHARACTERS
    assert ("previous_token_output" in output.modifiers) == looks
    expected = share * (PreviousTokenOutput().factor if looks else 1) * plain / math.sqrt(2)
    assert output.init.std == pytest.approx(expected)
    mlp = made["transformer.h.0.mlp.c_proj.weight"]
    assert mlp.init.std == pytest.approx(math.sqrt(1 / 3 / 256) / math.sqrt(2))


def weighted_messages(x: Tensor) -> Tensor:
    """All of a set to one node, each times a weight, as in graph convolutions."""
    to = (0 * x).long()
    return torch.zeros(3, 1, 8).scatter_add(1, to, 0.3 * x)[:, 0]


class Sets(nn.Module):
    def __init__(self, pool) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8))
        self.all = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
        self.pool = pool

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
        (weighted_messages, 1),
    ],
)
def test_what_reads_a_sum_of_many_is_smaller(pool, factor):
    made = decisions(trace(Sets(pool), torch.randn(3, 16, 2)))
    gain = UnnormalizedChain().chain_gain(math.sqrt(2), 4)
    first, last = made["all.0.weight"], made["all.2.weight"]
    assert first.init.std == pytest.approx(gain / math.sqrt(8) / factor, rel=1e-3)
    assert ("sum_pooling" in first.modifiers) == (factor > 1)
    assert last.modifiers == (("set_output",) if factor > 1 else ())
    end = DEFAULT_GAIN / math.sqrt(8) * (SetOutput().factor if factor > 1 else 1)
    assert last.init.std == pytest.approx(end)


@pytest.mark.parametrize(
    ("norm", "shrinks"), [(nn.BatchNorm2d, True), (lambda width: nn.GroupNorm(1, width), False)]
)
def test_wide_classifiers_of_convolutional_networks_start_smaller(norm, shrinks):
    stds = []
    for width in (128, 512):
        pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
        model = nn.Sequential(nn.Conv2d(3, width, 3), norm(width), nn.Conv2d(width, width, 3), *pooled)
        made = decisions(trace(model, torch.zeros(2, 3, 8, 8)))["5.weight"]
        assert ("wide_classifier" in made.modifiers) == (shrinks and width > 128)
        stds.append(made.init.std)
    assert stds[0] == pytest.approx(math.sqrt(1 / 3 / 128))
    assert stds[1] == pytest.approx(stds[0] / (4 if shrinks else 2))


class Equalized(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.zeros(6))
        self.factor, self.head = factor, nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(nn.functional.linear(x, self.weight * self.factor, self.bias)))


def test_known_factors_are_divided_out():
    plain, small = (
        decisions(trace(Equalized(factor), torch.randn(3, 8)))["weight"] for factor in (1.0, 0.25)
    )
    assert small.init.std == pytest.approx(4 * plain.init.std)
    assert (plain.modifiers, small.modifiers) == ((), ("known_factor",))
