"""Each objective's gradient points where training says the prediction should have been."""

import contextlib
import random
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.objective import Lesson, learn, linear_loss, regression_loss


class Regression:
    """A linear map to fit: ``task.loss`` and ``task.examples`` as the objectives use them."""

    def __init__(self) -> None:
        inputs = torch.randn(64, 5)
        self.columns = (inputs, inputs @ torch.randn(5, 3))
        self.examples = SimpleNamespace(batches=self.batches)

    def batches(self, count: int, size: int, generator: torch.Generator):  # type: ignore[no-untyped-def]
        for rows in torch.randint(64, (count, size), generator=generator):
            yield tuple(column[rows] for column in self.columns)

    @staticmethod
    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return (model(batch[0]) - batch[1]).square().mean()


def lesson_of(
    objective: str, optimizer: str = "adamw"
) -> tuple[Lesson, dict[str, Tensor], nn.Module, Regression]:
    torch.manual_seed(0)
    task, model = Regression(), nn.Linear(5, 3)
    predicted = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    config = MetaTrainConfig(
        objective=objective, inner_steps=(30, 30), inner_lr=(0.02, 0.02), inner_optimizer=optimizer
    )
    start = {name: value.detach() for name, value in predicted.items()}
    lesson = learn(model, start, task, config, random.Random(0), contextlib.nullcontext)  # type: ignore[arg-type]
    return lesson, predicted, model, task


@pytest.mark.parametrize("objective", ["regression", "trajectory", "after_k", "step0"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_following_the_gradient_makes_a_better_start(objective: str, optimizer: str) -> None:
    lesson, predicted, model, task = lesson_of(objective, optimizer)
    lesson.loss(predicted).backward()
    assert lesson.first_loss > 0

    def loss_at(step: float) -> float:
        moved = {name: value.detach() - step * value.grad for name, value in predicted.items()}
        output = torch.func.functional_call(model, moved, task.columns[0])
        return (output - task.columns[1]).square().mean().item()

    assert loss_at(0.01) < loss_at(0.0)


def test_step0_is_the_loss_of_the_prediction_and_leaves_it() -> None:
    lesson, predicted, model, _ = lesson_of("step0")
    for name, value in model.named_parameters():
        assert torch.equal(value, predicted[name])
    assert lesson.loss(predicted).item() == pytest.approx(lesson.first_loss)


@pytest.mark.parametrize("objective", ["regression", "trajectory", "after_k"])
def test_others_train_the_target(objective: str) -> None:
    lesson, *_ = lesson_of(objective)
    assert lesson.last_loss < lesson.first_loss


def test_regression_gradient_points_where_training_went() -> None:
    start, displacement = torch.randn(4, 3), torch.randn(4, 3)
    predicted = {"weight": start.clone().requires_grad_()}
    regression_loss(predicted, {"weight": start}, {"weight": start + displacement}).backward()
    direction = -predicted["weight"].grad
    assert torch.allclose(direction / direction.norm(), displacement / displacement.norm(), atol=1e-6)


def test_regression_is_in_units_of_the_start_for_matrices_and_bounded_for_small_vectors() -> None:
    matrix, bias = torch.randn(4, 3), torch.full((4,), 1e-4)
    for size in (1.0, 100.0):
        loss = regression_loss({"w": matrix * size}, {"w": matrix * size}, {"w": matrix * size * 1.1})
        assert loss.item() == pytest.approx(0.01, rel=1e-4)
    assert regression_loss({"b": bias}, {"b": bias}, {"b": bias + 1e-2}).item() == pytest.approx(0.01)


def test_linear_loss_has_the_value_and_the_slope_it_was_given() -> None:
    start = {"w": torch.randn(3)}
    predicted = {"w": start["w"].clone().requires_grad_()}
    gradients, losses = {"w": torch.tensor([2.0, -4.0, 1.0])}, torch.tensor([5.0, 3.0])
    loss = linear_loss(predicted, start, gradients, losses)
    loss.backward()
    assert loss.item() == 4.0
    assert torch.equal(predicted["w"].grad, torch.tensor([1.0, -2.0, 0.5]))
