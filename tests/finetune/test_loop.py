"""The loop: equal conditions for all arms, runs that diverge."""

import math

import pytest
import torch

from ghn.errors import ConfigError
from ghn.finetune.choose import batches_of, make_task
from ghn.finetune.config import CompareConfig
from ghn.finetune.loop import Budget, make_accelerator, train_run


def go(config, init="random", seed=0, lr=None):
    task = make_task(config)
    budget = Budget.of(config, task, *batches_of(config, task))
    return train_run(task, config, budget, make_accelerator(config), init, seed, lr or config.lr[0])


def test_the_same_run_twice_is_the_same(tiny):
    first, second = (go(tiny(model_kwargs={"drop_rate": 0.3})) for _ in range(2))
    assert first.curve == second.curve
    assert [point.step for point in first.curve] == [0, 1, 2, 3]


def test_seeds_differ(tiny):
    assert go(tiny()).curve[0] != go(tiny(), seed=1).curve[0]


def test_what_an_arm_draws_changes_neither_dropout_nor_batches(tiny, monkeypatch):
    """An arm that draws random numbers and writes nothing trains exactly as random does."""
    from ghn.arms import ARMS

    def draws(model, settings):
        torch.rand(1000)
        return ""

    monkeypatch.setitem(ARMS, "draws", draws)
    config = tiny(model_kwargs={"drop_rate": 0.3})
    assert go(config, "draws").curve == go(config, "random").curve


def test_a_loss_that_is_not_finite_ends_the_run_and_says_why(tiny):
    run = go(tiny(clip=0.0, steps=8, eval_every=8, optimizer="sgd"), lr=1e30)
    assert "learning rate is too high" in run.error
    assert run.final is None
    assert all(math.isfinite(point.loss) for point in run.curve)


def test_training_lowers_the_loss(tiny):
    run = go(tiny(steps=30, batch_size=64, lr=(3e-3,), eval_samples=200))
    assert run.curve[-1].loss < run.curve[0].loss - 0.3
    assert run.curve[-1].metric > 0.3


def test_bits_per_byte_start_near_uniform_and_fall(tiny_text):
    run = go(tiny_text(steps=20, lr=(1e-2,)))
    uniform = math.log2(384)  # ids of the byte tokenizer
    assert run.curve[0].metric == pytest.approx(-uniform, rel=0.05)
    assert run.curve[-1].metric > run.curve[0].metric + 1


def test_mixed_precision_trains(tiny):
    assert go(tiny(precision="bf16")).final is not None


def test_device_that_is_not_there():
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda"):
        make_accelerator(CompareConfig(device="gpu"))
    with pytest.raises(ConfigError, match="cuda:99 is not available here"):
        make_accelerator(CompareConfig(device="cuda:99"))


def test_fp16_is_refused_where_it_would_be_ignored(tiny):
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        make_accelerator(tiny(precision="fp16"))
