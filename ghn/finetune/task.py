"""A task with the model that a comparison trains on it."""

from abc import abstractmethod
from typing import Any

import torch
from torch import nn

from ghn.errors import ConfigError, GhnError, ModelError, one_line
from ghn.models import load_model
from ghn.tasks import Task, call
from ghn.tensors import count_parameters


class ModelTask(Task):
    """One model on one data set; the arms of a comparison share it."""

    eval_samples: int
    """Examples of ``evaluation`` to use unless the configuration says."""
    dataset: str
    model: str
    model_kwargs: dict[str, Any]
    """Arguments that ``load_model`` gets: those that the data set implies, and the user's."""
    settings: dict[str, Any]
    """Fields of the configuration that depend on model and data, as they were chosen or given."""

    def build(self, seed: int) -> nn.Module:
        """Construct the model with the zoo's own initialization under a seed; on the CPU, in train mode."""
        torch.manual_seed(seed)
        return load_model(self.model, **self.model_kwargs).train()

    def check(self) -> int:
        """Run the model once before anything is spent on it.

        Returns:
            Number of its parameters.

        Raises:
            ConfigError: If it can't run on the data set's examples.
            DataError: If its outputs don't fit the data set.
        """
        model = self.build(0).eval()
        try:
            with torch.no_grad():
                output = call(model, self.example())
        except GhnError:
            raise
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
            raise ConfigError(self._cannot_run(one_line(error, 200))) from error
        self._check_output(model, output)
        return count_parameters(model)

    @abstractmethod
    def _cannot_run(self, reason: str) -> str:
        """Message for a model that fails on an example."""

    @abstractmethod
    def _check_output(self, model: nn.Module, output: Any) -> None:
        """Refuse outputs that don't fit the data set."""


def first_that_builds(model: str, candidates: list[dict[str, Any]]) -> tuple[nn.Module, dict[str, Any]]:
    """Construct a model without memory, with the first arguments that it takes.

    Not every model takes an image size, nor every factory a number of classes. The last candidate holds the user's own
    arguments alone: those the model must take.

    Raises:
        ModelError: What the model says to the last candidate.
    """
    for arguments in candidates[:-1]:
        try:
            return load_model(model, device="meta", **arguments), arguments
        except ModelError:
            continue
    return load_model(model, device="meta", **candidates[-1]), candidates[-1]
