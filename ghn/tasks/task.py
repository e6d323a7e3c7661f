"""Data with a loss and a metric: all that training a network takes beside the network."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ghn.data.order import Split
from ghn.tensors import logits_of

Batch = tuple[Tensor, ...]
"""Examples as a split gives them."""

Inputs = dict[str, Any] | tuple[Tensor, ...]
"""Keyword or positional arguments of a network."""


PREDICTIONS = 256
"""Enough to tell whether a network knows something about the data (``ghn.apply.knowledge``)."""


class Task(ABC):
    """A data set, how networks read it, and what they are judged by.

    A task of your own inherits from this class, sets ``kind``, ``train``, ``evaluation`` and ``arguments``, and defines
    ``inputs``; where its targets are no classes it defines ``loss`` and ``metric`` too.
    """

    name: ClassVar[str]
    """As in ``results.json``."""
    metric_name: ClassVar[str] = "accuracy"
    """For tables and axes, which show a name that begins with a minus, such as '−bits per byte', without the sign."""
    kind: ClassVar[str] = "images"
    """'images' or 'text': which of the library's spaces has networks for it, and which settings of meta-training hold
    (image_batch or text_batch and so on). Data of other kinds take either, with a space of their own."""
    train: Split
    """Examples to learn from."""
    evaluation: Split
    """Examples to measure on."""
    arguments: Mapping[str, Any]
    """What the data says about the arguments of a network, such as the number of classes."""

    @abstractmethod
    def inputs(
        self, batch: Batch, device: torch.device, augment: torch.Generator | None = None
    ) -> tuple[Inputs, Tensor]:
        """Bring a batch to a device.

        Args:
            batch: From a split.
            device: Where the network is.
            augment: Random numbers to augment with; None leaves the examples as they are.

        Returns:
            What to call the network with, and what ``loss`` takes as targets: the class of each prediction, unless the
            task has a loss of its own.
        """

    def example(self) -> Inputs:
        """Two training examples on the CPU, as a network takes them: to trace it."""
        return self.inputs(self.train.__getitems__([0, len(self.train) // 2]), torch.device("cpu"))[0]

    @cached_property
    def examples(self) -> tuple[Inputs, Tensor] | None:
        """Training examples on the CPU, spread over the split, and about ``PREDICTIONS`` right classes.

        None where targets are no classes: the task has a loss of its own.
        """
        if type(self).loss is not Task.loss:
            return None
        device = torch.device("cpu")
        one = self.inputs(self.train.__getitems__([0]), device)[1]
        count = min(len(self.train), max(2, -(-PREDICTIONS // max(1, one.numel()))))
        return self.inputs(
            self.train.__getitems__([len(self.train) * number // count for number in range(count)]), device
        )

    def loss(self, output: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss in nats, and the number of predictions that are right; scalars on the device."""
        return losses(output, targets)

    def metric(self, loss: float, accuracy: float) -> float:
        """The figure to compare, larger is better, from the mean loss in nats and the share of right predictions."""
        return accuracy


def call(network: nn.Module, inputs: Inputs, weights: Mapping[str, Tensor] | None = None) -> Any:
    """Call a network with keyword or positional arguments, and with other weights than its own if there are some."""
    positional, named = ((), dict(inputs)) if isinstance(inputs, Mapping) else (inputs, {})
    if weights is None:
        return network(*positional, **named)
    return functional_call(network, dict(weights), positional, named)


def mean_loss(task: Task, batches: Iterable[Batch], forward: Callable[[Inputs], Any]) -> tuple[float, float]:
    """Mean loss in nats, and share of right predictions, of what ``forward`` returns for batches on the CPU."""
    loss = right = count = 0.0
    for batch in batches:
        inputs, targets = task.inputs(batch, torch.device("cpu"))
        mean, correct = task.loss(forward(inputs), targets)
        size = targets.numel()
        loss, right, count = loss + float(mean) * size, right + float(correct), count + size
    return loss / count, right / count


def losses(output: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy in nats, and the number of predictions that are right; scalars on the device."""
    logits = logits_of(output).float().flatten(0, -2)
    targets = targets.flatten()
    return F.cross_entropy(logits, targets), (logits.detach().argmax(-1) == targets).sum()
