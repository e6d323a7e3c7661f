"""A task of the user's own, with any model that takes its inputs."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ghn.errors import ConfigError
from ghn.finetune.task import ModelTask, first_that_builds
from ghn.tasks import Batch, Inputs, Task
from ghn.user_code import blamed


class OwnTask(ModelTask):
    """What a user's task says, and a model.

    Args:
        task: The user's.
        name: By which it was found, for messages and results.
        model: Specification for ``ghn.load_model``.
        given: The user's model arguments, over those of the task, which the model may not take.

    Raises:
        ModelError: If the model can't be built.
    """

    eval_samples = 2000

    def __init__(self, task: Task, name: str, model: str, arguments: dict[str, Any]) -> None:
        self._task, self.dataset, self.model, self.settings = task, name, model, {}
        self.name, self.metric_name, self.kind = task.name, task.metric_name, task.kind  # type: ignore[misc]
        self.train, self.evaluation, self.arguments = task.train, task.evaluation, task.arguments
        _, self.model_kwargs = first_that_builds(model, [{**task.arguments, **arguments}, arguments])

    def inputs(
        self, batch: Batch, device: torch.device, augment: torch.Generator | None = None
    ) -> tuple[Inputs, Tensor]:
        """See ``Task.inputs``."""
        with blamed(self.dataset):
            return self._task.inputs(batch, device, augment)

    @cached_property
    def examples(self) -> tuple[Inputs, Tensor] | None:
        """See ``Task.examples``."""
        with blamed(self.dataset):
            return self._task.examples

    def loss(self, output: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Task.loss``."""
        with blamed(self.dataset):
            return self._task.loss(output, targets)

    def metric(self, loss: float, accuracy: float) -> float:
        """See ``Task.metric``."""
        with blamed(self.dataset):
            return self._task.metric(loss, accuracy)

    def _cannot_run(self, reason: str) -> str:
        return (
            f"{self.model} can't run on the inputs of {self.dataset!r} ({reason}); pass a --model that takes them, or "
            "arguments that fit them with --model-kwargs"
        )

    def _check_output(self, model: nn.Module, output: Any) -> None:
        batch = self.train.__getitems__([0, len(self.train) // 2])  # what ``example`` is
        loss, _ = self.loss(output, self.inputs(batch, torch.device("cpu"))[1])
        if not (loss.numel() == 1 and bool(loss.isfinite())):
            raise ConfigError(
                f"{self.dataset!r} makes a loss of shape {tuple(loss.shape)} with mean {float(loss.mean())}; expected "
                "a finite scalar"
            )
