"""BatchNorm statistics of new weights."""

import pytest
import torch
from torch import nn

from ghn.apply.calibrate import batchnorm_layers, calibrate_
from ghn.errors import DataError

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


@pytest.mark.parametrize(
    ("batches", "error"),
    [([], DataError), ([BATCHES[0], torch.ones(2, 9)], RuntimeError)],
    ids=["none", "wrong"],
)
def test_a_failure_leaves_the_statistics(batches, error):
    model = _model().train()
    model(BATCHES[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(error, match=r"at least one batch|running_mean|size|shape"):
        calibrate_(model, batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[0].momentum == 0.3
    assert model.training
