"""BatchNorm statistics of new weights."""

from collections import namedtuple

import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from transformers import BatchEncoding

from ghn.apply.calibrate import batchnorm_layers, calibrate_
from ghn.errors import DataError
from ghn.tracing.trace import trace

GENERATOR = torch.Generator().manual_seed(0)
BATCHES = [3 * torch.randn(16, 8, generator=GENERATOR) + shift for shift in range(4)]


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(8, momentum=0.3), nn.Dropout(0.5), nn.Linear(8, 4), nn.BatchNorm1d(4))


def test_statistics_are_averages_over_the_batches():
    model = _model()
    assert calibrate_(model, BATCHES) == 2
    means = torch.stack([batch.mean(0) for batch in BATCHES]).mean(0)
    variances = torch.stack([batch.var(0) for batch in BATCHES]).mean(0)
    torch.testing.assert_close(model[0].running_mean, means)
    torch.testing.assert_close(model[0].running_var, variances)


def test_other_things_stay(monkeypatch):
    model = _model().train()
    model[0].eval()
    modes = [module.training for module in model.modules()]
    weights = [p.clone() for p in model.parameters()]
    calibrate_(model, BATCHES)
    assert [module.training for module in model.modules()] == modes
    assert [layer.momentum for layer in batchnorm_layers(model)] == [0.3, 0.1]
    assert all(
        torch.equal(p, old) and p.grad is None for p, old in zip(model.parameters(), weights, strict=True)
    )


def test_dropout_is_off_meanwhile():
    one, other = _model(), _model()
    for model in (one, other):
        calibrate_(model, BATCHES)
    assert torch.equal(one[3].running_mean, other[3].running_mean)


@pytest.mark.parametrize("batch", [(BATCHES[0],), [BATCHES[0]], {"input": BATCHES[0]}])
def test_kinds_of_batches(batch):
    assert calibrate_(_model(), [batch]) == 2


def test_layers_that_the_batches_dont_reach_keep_their_statistics():
    model = _model()
    model.add_module("spare", nn.BatchNorm1d(8))
    model.spare(BATCHES[0] + 5)
    before = {name: value.clone() for name, value in model.spare.state_dict().items()}
    model.forward = lambda x: nn.Sequential.forward(model[:-1], x)
    assert calibrate_(model, BATCHES) == 2
    assert all(torch.equal(value, before[name]) for name, value in model.spare.state_dict().items())


def test_nothing_to_calibrate():
    def never():
        pytest.fail("batches were read")
        yield

    assert calibrate_(nn.Linear(8, 4), never()) == 0
    assert calibrate_(nn.BatchNorm1d(8, track_running_stats=False), never()) == 0


@pytest.mark.parametrize("batches", [[], [BATCHES[0], torch.ones(2, 9)]], ids=["none", "wrong"])
def test_a_failure_leaves_the_statistics(batches):
    model = _model().train()
    model(BATCHES[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        DataError, match=r"at least one batch|failed on batch 1, called with \(tensor \(2, 9\)\)"
    ):
        calibrate_(model, batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[0].momentum == 0.3
    assert model.training


class ByAttribute(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, data=None, **kwargs):
        return self.norm(data.x if data is not None else kwargs["x"])


@pytest.mark.parametrize(
    "batch",
    [Data(x=BATCHES[0]), BatchEncoding({"x": BATCHES[0]}), namedtuple("Pair", "x y")(BATCHES[0], 1)],
    ids=lambda batch: type(batch).__name__,
)
def test_batches_are_read_as_a_trace_reads_inputs(batch):
    model = ByAttribute()
    trace(model, batch)
    assert calibrate_(model, [batch]) == 1
    assert torch.allclose(model.norm.running_mean, BATCHES[0].mean(0))


LABELS = torch.zeros(4)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([(BATCHES[0], LABELS)], r"TypeError.*\(images for images, _ in loader\)"),
        (BATCHES[0], r"batches is one Tensor.*pass \[batch\]"),
        ({"input": BATCHES[0]}, r"batches is one dict.*pass \[batch\]"),
        ([BATCHES[0], BATCHES[0][:1]], r"failed on batch 1.*drop_last=True"),
        ([BATCHES[0].double()], r"failed on batch 0.*RuntimeError.*A batch is a tensor"),
        ([{"input": BATCHES[0], "labels": LABELS}], r"TypeError.*leave out those that it doesn't take"),
        ([BATCHES[0], BATCHES[1] * torch.nan], r"statistics of Sequential's '0' are not finite"),
        (Data(x=BATCHES[0]), r"batches is one Data.*pass \[batch\]"),
        (None, "batches is one NoneType"),
        ([{"x": BATCHES[0]}], r"failed on batch 0, called with \(x=tensor \(\d+, 8\)\): TypeError"),
    ],
)
def test_wrong_batches_are_one_line(batches, message):
    with pytest.raises(DataError, match=message) as error:
        calibrate_(_model(), batches)
    assert "\n" not in str(error.value)


def test_a_model_on_the_meta_device_has_nothing_to_calibrate_yet():
    with pytest.raises(DataError, match=r"'0.weight' is on the meta device.*ghn\.init_"):
        calibrate_(_model().to("meta"), BATCHES)
