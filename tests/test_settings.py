"""Predictions are the same whatever the caller's PyTorch is set to, and leave it so."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from ghn.hypernetwork import GHN
from ghn.settings import own_settings

X = torch.ones(2, 8)


@contextmanager
def double():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default dtype": double,
    "default device": lambda: torch.device("meta"),
}


def _model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_predictions_are_those_without_the_setting(tiny_ghn, setting, tmp_path):
    tiny_ghn.save_pretrained(tmp_path)
    model, other = _model(), _model()
    tiny_ghn.init_(model, X)
    with setting():
        net = GHN.from_pretrained(tmp_path)
        net.init_(other, X)
        predicted = net.predict(other, X)
    assert {weight.dtype for weight in net.parameters()} == {torch.float32}
    for name, weight in model.named_parameters():
        torch.testing.assert_close(other.get_parameter(name), weight)
        torch.testing.assert_close(predicted[name], weight)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_settings_come_back(setting):
    def now() -> tuple[object, ...]:
        return torch.is_autocast_enabled("cpu"), torch.get_default_dtype(), torch.get_default_device()

    with setting():
        before = now()
        with own_settings():
            assert now() == (False, torch.float32, torch.device("cpu"))
        with pytest.raises(ZeroDivisionError), own_settings():
            _ = 1 / 0
        assert now() == before != (False, torch.float32, torch.device("cpu"))
