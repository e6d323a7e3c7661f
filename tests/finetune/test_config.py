"""Wording of mistakes in a configuration."""

import pytest

from ghn.errors import ConfigError
from ghn.finetune.config import CompareConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inits": ("randon",)}, "unknown initialization 'randon'.*Did you mean 'random'"),
        ({"inits": ("base-without-fanin",)}, "no rule 'fanin'.*Did you mean 'fan_in'"),
        ({"rules": ("builtins:dict",)}, "'builtins:dict' makes dict; expected a subclass of ghn.base.Rule"),
        ({"optimizer": "adam"}, "unknown --optimizer 'adam'.*Did you mean 'adamw'"),
        ({"precision": "fp8"}, "unknown --precision 'fp8'"),
        ({"steps": 10, "epochs": 1.0}, "give one of them"),
        ({"steps": -1}, "--steps is -1; expected more than 0"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"epochs": float("nan")}, "--epochs is nan"),
        ({"weight_decay": -0.1}, "--weight-decay is -0.1; expected 0 or more"),
        ({"lr": (1e-3, -1.0)}, "--lr holds -1.0"),
        ({"seeds": (0, 0)}, "--seeds 0 0 repeats a value"),
        ({"seeds": (-1,)}, "--seeds holds -1"),
        ({"warmup": 1.0}, "--warmup is 1.0; expected a share"),
        ({"resume": True}, "--resume needs --output-dir"),
    ],
)
def test_mistakes_are_explained(values, message):
    with pytest.raises(ConfigError, match=message):
        CompareConfig(**values)


def test_how_it_runs_is_no_part_of_what_it_is():
    first = CompareConfig(output_dir="a", num_workers=2)
    second = CompareConfig(output_dir="b", resume=True)
    assert first.identity() == second.identity()
    assert first.identity() != CompareConfig(steps=7).identity()
