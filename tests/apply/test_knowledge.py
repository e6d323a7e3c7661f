"""How much of what was learned a model gets: all for data that it tells apart, else what fades out with depth."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

import ghn
from ghn.apply.knowledge import beats_chance
from ghn.decoder.config import DENSE, DecoderConfig
from ghn.decoder.plan import plan_parameters
from ghn.decoder.slot_decoder import SlotDecoder
from ghn.decoder.slots import SlotBank, slot_sizes
from ghn.errors import ConfigError, DataError
from ghn.hypernetwork import GHN, GHNConfig

IMAGES = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TOKENS = {"input_ids": torch.arange(32).view(2, 16), "use_cache": False}


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet18", layers=(1, 1, 1, 1), channels=(8, 8, 16, 16), num_classes=10)


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=16, vocab_size=64))


@pytest.fixture(scope="module")
def learned() -> Callable[[nn.Module, object], GHN]:
    """A hypernetwork that has slots for a model, as if something had been learned."""

    def make(model: nn.Module, inputs: object) -> GHN:
        graph = ghn.trace(model, inputs)
        plans = plan_parameters(graph, DecoderConfig(scope="all"))
        bank = SlotBank(slot_sizes([("own", graph, plans)], DENSE))
        with torch.no_grad():
            for table in bank.rows:
                table.add_(0.3 * torch.randn(table.shape, generator=torch.Generator().manual_seed(0)))
        net = GHN(GHNConfig(decoder=DecoderConfig(slots=bank.to_slots())))
        assert isinstance(net.decoder, SlotDecoder)
        net.decoder.bank.load_state_dict(bank.state_dict())
        return net.eval()

    return make


def test_early_fades_out_from_the_first_layer_to_the_last(learned: Callable[..., GHN]) -> None:
    model = resnet()
    net = learned(model, IMAGES[:2])
    whole, early, base = (net.predict(model, IMAGES[:2], learned=how) for how in ("all", "early", False))
    first, last = "conv1.weight", "fc.weight"
    assert early[first].equal(whole[first]) and not early[first].equal(base[first])
    assert early[last].equal(base[last]) and not early[last].equal(whole[last])
    report = net.init_(model, IMAGES[:2], learned="early")
    kernels = [entry.learned for entry in report.parameters if entry.name.endswith("conv1.weight")]
    assert kernels[0] > 0.9 and kernels == sorted(kernels, reverse=True) and kernels[-1] < 0.1
    assert "fading out" in report.origin
    for name, value in model.named_parameters():
        assert value.equal(early[name])


def test_images_fade_and_texts_of_the_vocabulary_do_not(learned: Callable[..., GHN]) -> None:
    for model, inputs, same in ((resnet(), IMAGES[:2], "early"), (gpt2(), TOKENS, "all")):
        net = learned(model, inputs)
        chosen, expected = net.predict(model, inputs), net.predict(model, inputs, learned=same)
        assert all(chosen[name].equal(expected[name]) for name in expected)


@pytest.mark.parametrize("known", [True, False])
def test_examples_that_are_told_apart_get_all(learned: Callable[..., GHN], known: bool) -> None:
    model = resnet()
    net = learned(model, IMAGES[:2])
    net.init_(model, IMAGES[:2], learned="all")
    classes = model.train()(IMAGES).argmax(1)
    assert len(classes.unique()) > 1
    model = resnet()
    labels = classes if known else torch.randint(10, (64,), generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in model.named_buffers()}
    report = net.init_(model, IMAGES[:2], examples=(IMAGES, labels))
    expected = net.predict(model, IMAGES[:2], learned="all" if known else "early")
    assert all(value.equal(expected[name]) for name, value in model.named_parameters())
    assert ("fading out" in report.origin) is not known
    assert all(value.equal(before[name]) for name, value in model.named_buffers())


def test_whether_a_model_beats_chance_is_seen_without_a_trace() -> None:
    labels = torch.tensor([0, 1]).repeat(32)

    class Model(nn.Module):
        def __init__(self, right: bool) -> None:
            super().__init__()
            self.right, self.norm, self.dropout = right, nn.BatchNorm1d(2), nn.Dropout(0.9)

        def forward(self, images: Tensor) -> Tensor:
            assert self.norm.training and not self.dropout.training
            answer = labels if self.right else torch.zeros_like(labels)
            return self.norm(nn.functional.one_hot(answer, 2).float())

    for right in (True, False):
        model = Model(right).train()
        model.norm.eval()
        assert beats_chance(model, (torch.zeros(64, 1), labels)) is right
        assert model.dropout.training and not model.norm.training and model.norm.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (IMAGES, "a pair"),
        ((IMAGES, torch.zeros(64)), "whole numbers"),
        ((IMAGES, [1, 2]), "whole numbers"),
        ((IMAGES, torch.zeros(0, dtype=torch.long)), "whole numbers"),
    ],
)
def test_examples_that_are_none_are_refused_before_anything_changes(
    learned: Callable[..., GHN], examples: object, message: str
) -> None:
    model = resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match=message):
        learned(model, IMAGES[:2]).init_(model, IMAGES[:2], examples=examples)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_classes_that_fit_no_prediction_are_named(learned: Callable[..., GHN]) -> None:
    model = resnet()
    with pytest.raises(DataError, match=r"logits \(64, 10\) and their classes are \(3,\)"):
        learned(model, IMAGES[:2]).init_(
            model, IMAGES[:2], examples=(IMAGES, torch.zeros(3, dtype=torch.long))
        )


def test_classes_that_a_model_does_not_tell_are_named(learned: Callable[..., GHN]) -> None:
    model = resnet()
    with pytest.raises(DataError, match=r"classes of examples go up to 10, and ResNet tells 10, from 0 to 9"):
        learned(model, IMAGES[:2]).init_(
            model, IMAGES[:2], examples=(IMAGES, torch.arange(64, dtype=torch.long) % 11)
        )


def test_how_much_is_checked(learned: Callable[..., GHN]) -> None:
    model = resnet()
    with pytest.raises(ConfigError, match=r"learned='erly'.*'early'"):
        learned(model, IMAGES[:2]).predict(model, IMAGES[:2], learned="erly")
