"""Whose slots a network takes: a wrong guess is worse than none."""

import pytest
import torch
from torch import Tensor, nn

import ghn
from ghn.models import load_model
from ghn.spaces.factories import inverted_residuals, lenet


@pytest.fixture(scope="module")
def net() -> ghn.GHN:
    return ghn.GHN.from_pretrained()


class Experts(nn.Module):
    """Two experts and a gate that read the same numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(10, 2)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        answers = torch.cat([expert(x) for expert in self.experts], 1)
        return (self.gate(x).softmax(1) * answers).sum(1)


class Points(nn.Module):
    """Pointwise layers of a set of points, and their maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv1d(3, 16, 1), nn.ReLU(), nn.Conv1d(16, 32, 1), nn.ReLU(), nn.Conv1d(32, 32, 1))
        )
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).amax(2))


class Residual1d(nn.Module):
    """A block of a ResNet over time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv1d(width, width, 3, padding=1, bias=False), nn.BatchNorm1d(width), nn.ReLU()),
            *(nn.Conv1d(width, width, 3, padding=1, bias=False), nn.BatchNorm1d(width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


def resnet_over_time() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(3, 2, 1)),
        *(Residual1d(16), Residual1d(16), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 10)),
    )


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (Experts, (4, 10)),
        (Points, (4, 3, 24)),
        (resnet_over_time, (4, 3, 64)),
        (
            lambda: nn.Sequential(nn.Conv3d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 10)),
            (2, 3, 3, 3, 3),
        ),
    ],
    ids=["experts", "points", "time series", "volumes"],
)
def test_what_does_not_read_images_takes_nothing_of_images(net: ghn.GHN, model, inputs) -> None:  # type: ignore[no-untyped-def]
    report = net.init_(model(), torch.randn(*inputs), learned="all")
    assert report.learned == 0, str(report)


def test_small_members_take_what_they_have(net: ghn.GHN) -> None:
    """Few stages have few of a family's places, but all of its kinds."""
    model = inverted_residuals(
        ["ds_r1_k3_s1_c8", "ir_r1_k3_s2_e3_c16", "ir_r1_k3_s2_e3_c24"], stem=8, features=48
    )
    report = net.init_(model, torch.randn(2, 3, 16, 16), learned="all")
    assert "from inverted" in str(report) and report.learned > 0.5


def test_maps_of_other_sizes_are_the_same_kind(net: ghn.GHN) -> None:
    """A network with one map of a flattened image has few of the kinds of all sizes that were learned."""
    model = lenet((8, 8), (1, 1), 16, padded=False)
    report = net.init_(model, torch.randn(2, 3, 16, 16), learned="all")
    assert "from lenet" in str(report) and report.learned > 0.9


def language_model(family: str, **kwargs: int) -> nn.Module:
    """Of the byte tokenizer's vocabulary, in two small blocks."""
    sizes = {
        "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 2},
        "llama": {
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 64,
        },
    }
    return load_model(f"hf:{family}:AutoModelForCausalLM", **{"vocab_size": 384, **sizes[family], **kwargs})


TOKENS = torch.arange(32).view(2, 16)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("learned", [True, False])
def test_cached_keys_and_values_make_no_other_network(net: ghn.GHN, family: str, learned: bool) -> None:
    """A plain call of a language model returns them beside its logits."""
    model = language_model(family)
    plain = net.predict(model, TOKENS, learned=learned)
    uncached = net.predict(model, {"input_ids": TOKENS, "use_cache": False}, learned=learned)
    assert all(values.equal(uncached[name]) for name, values in plain.items())
    assert net.init_(model, TOKENS).learned > 0.9


@pytest.mark.parametrize("length", [16, 200])
def test_longer_texts_repeat_the_positions_that_were_learned(net: ghn.GHN, length: int) -> None:
    model = language_model("gpt2", n_positions=length)
    assert net.init_(model, TOKENS).learned > 0.9
    table = model.get_parameter("transformer.wpe.weight").detach()
    known = net.predict(language_model("gpt2", n_positions=64), TOKENS)["transformer.wpe.weight"]
    expected = known[torch.arange(length) % 64]
    assert nn.functional.cosine_similarity(table, expected).min() > 0.85  # the rest is each seed's own


def test_other_vocabularies_are_named(net: ghn.GHN) -> None:
    report = net.init_(language_model("gpt2", vocab_size=1000), TOKENS)
    assert report.learned == 0
    assert "gpt2, has 89% of its layers, but for other vocabularies than 1000 tokens" in str(report)
