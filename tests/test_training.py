"""Schedule and weight decay of targets."""

import pytest
from torch import nn

from ghn.training import make_optimizer, schedule


def test_schedule_rises_to_the_peak_and_falls_without_reaching_zero():
    factors = [schedule(step, 100, 0.1) for step in range(1, 101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[-1] < 0.01
    assert schedule(1, 1, 0.1) == schedule(1, 10, 0.0) == 1.0


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_vectors_are_not_decayed(name):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    optimizer = make_optimizer(model, name, lr=0.1, weight_decay=0.3)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decay[id(p)] for p in model.parameters()] == [0.3, 0.0, 0.0, 0.0]
