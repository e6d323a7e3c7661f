"""The optimizer of tables: AdamW on those that were touched, with clipping, a schedule and a running average."""

from collections.abc import Iterator

import pytest
import torch

from ghn.decoder.config import DENSE
from ghn.decoder.slots import SlotBank
from ghn.metatrain.config import OptimizerConfig
from ghn.metatrain.cutting import Gradients
from ghn.metatrain.state import TrainState

SIZES = {"a/1/conv": (1, 4, 1, 4, 3, 2, DENSE), "a/1/norm": (1, 4, 1, 1, 1, 1, 0)}
CONFIG = OptimizerConfig(updates=10, warmup=2, clip_norm=1e6, ema=0.9)


@pytest.fixture
def state() -> TrainState:
    return TrainState.of(SlotBank(SIZES), CONFIG)


def random_gradients(state: TrainState, tables: Iterator[torch.nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(state.done)
    for table in tables:
        state.gradients.of(table).copy_(torch.randn(table.shape, generator=generator))


def test_steps_are_those_of_adamw(state: TrainState) -> None:
    table = state.bank.rows[0]
    own = table.detach().clone().requires_grad_()
    adam = torch.optim.AdamW([own], betas=(0.9, 0.99), weight_decay=0.0, foreach=True)
    for state.done in range(5):
        random_gradients(state, iter([table]))
        own.grad = table.grad.clone()
        adam.param_groups[0]["lr"] = CONFIG.image_lr * CONFIG.schedule(state.done)
        state.optimizer.step(state.done, "images")
        adam.step()
        torch.testing.assert_close(table, own)
        state.gradients.clear()


def test_tables_without_a_gradient_stay(state: TrainState) -> None:
    before = {name: value.clone() for name, value in state.bank.state_dict().items()}
    random_gradients(state, iter([state.bank.rows[0]]))
    state.optimizer.step(0, "images")
    after = state.bank.state_dict()
    assert [name for name in before if not before[name].equal(after[name])] == ["rows.0"]
    average = state.average.rows[0]
    expected = before["rows.0"].lerp(after["rows.0"], 0.9)  # a tenth of the start is left in the first update
    torch.testing.assert_close(average.detach(), expected)


def test_gradients_are_clipped_as_one() -> None:
    config = OptimizerConfig(
        updates=10, clip_norm=1e-9
    )  # far below AdamW's epsilon, so that steps shrink with it
    state = TrainState.of(SlotBank(SIZES), config)
    before = state.bank.rows[0].detach().clone()
    random_gradients(state, iter([state.bank.rows[0], state.bank.rows[2]]))
    squares = [table.grad.square().sum() for table in (state.bank.rows[0], state.bank.rows[2])]
    assert state.optimizer.step(9, "images") == pytest.approx(sum(squares).sqrt().item())
    assert 0 < (state.bank.rows[0] - before).abs().max() < 0.1 * config.image_lr


def test_the_rate_rises_stays_and_falls() -> None:
    config = OptimizerConfig(updates=10, warmup=2, decay=0.5)
    assert [config.schedule(update) for update in range(10)] == [0.5, *[1.0] * 5, 0.8, 0.6, 0.4, 0.2]


def test_memory_of_gradients_is_kept_and_empty() -> None:
    bank = SlotBank(SIZES)
    gradients = Gradients(bank)
    first = gradients.of(bank.rows[0]).add_(1)
    gradients.clear()
    assert bank.rows[0].grad is None
    again = gradients.of(bank.rows[0])
    assert again.data_ptr() == first.data_ptr() and not again.any()
