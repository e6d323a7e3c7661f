"""What a comparison trains and measures: a model's arguments, its batches, its loss and its metric."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghn.data.order import Split
from ghn.errors import ConfigError, DataError, GhnError, ModelError, one_line
from ghn.models import load_model

Inputs = dict[str, Any] | tuple[Tensor, ...]
"""Keyword or positional arguments of a model."""


class Task(ABC):
    """One model on one data set; the arms of a comparison share it."""

    name: str
    """As in ``results.json``."""
    metric_name: str
    """For tables and axes."""
    train: Split
    evaluation: Split
    eval_samples: int
    """Examples of ``evaluation`` to use unless the configuration says."""
    dataset: str
    model: str
    model_kwargs: dict[str, Any]
    """What ``load_model`` is called with, implied and given."""
    chosen: dict[str, Any]
    """Fields of the configuration that depend on model and data, as they were chosen or given."""

    def build(self, seed: int) -> nn.Module:
        """Construct the model with the zoo's own initialization under a seed; on the CPU, in train mode."""
        torch.manual_seed(seed)
        return load_model(self.model, **self.model_kwargs).train()

    @abstractmethod
    def example(self) -> Inputs:
        """A small batch of inputs on the CPU, as the model takes them: to trace it."""

    @abstractmethod
    def inputs(
        self, batch: tuple[Tensor, ...], device: torch.device, augment: torch.Generator | None = None
    ) -> tuple[Inputs, Tensor]:
        """Bring a batch to a device.

        Args:
            batch: From a split.
            device: Where the model is.
            augment: Random numbers to augment with; None leaves the examples as they are.

        Returns:
            What to call the model with, and the class of each prediction.
        """

    @abstractmethod
    def metric(self, loss: float, accuracy: float) -> float:
        """The figure to compare, larger is better, from the mean loss in nats and the share of right predictions."""

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
                logits = logits_of(call(model, self.example()))
        except GhnError:
            raise
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
            raise ConfigError(self._cannot_run(one_line(error, 200))) from error
        self._check_logits(model, logits)
        return sum(parameter.numel() for parameter in model.parameters())

    @abstractmethod
    def _cannot_run(self, reason: str) -> str:
        """Message for a model that fails on an example."""

    @abstractmethod
    def _check_logits(self, model: nn.Module, logits: Tensor) -> None:
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


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Call a model with keyword or positional arguments."""
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def logits_of(output: Any) -> Tensor:
    """Predictions in what a model returns; of several heads (auxiliary, distillation) those of the first.

    Raises:
        DataError: If there is no tensor in it.
    """
    found = getattr(output, "logits", output)
    if isinstance(found, (tuple, list)) and found:
        found = found[0]
    if not isinstance(found, Tensor):
        raise DataError(
            f"the model returns {type(output).__name__}; expected a tensor of logits, or .logits: choose an image "
            "classifier or a causal language model"
        )
    return found


def losses(output: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy in nats, and the number of predictions that are right; scalars on the device."""
    logits = logits_of(output).float().flatten(0, -2)
    targets = targets.flatten()
    return F.cross_entropy(logits, targets), (logits.detach().argmax(-1) == targets).sum()
