"""What an objective sees of a network, and what it gives back."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ghn.tasks import Batch, Inputs, Task, call

Weights = Mapping[str, Tensor]


class Trial:
    """One network of an update, with the weights that were cut out for it and fresh batches of its task.

    Args:
        network: Parameters that are not among ``weights`` keep their own values.
        weights: Cut out of the slots, by name.
        task: Where batches come from.
        size: Examples of a batch.
        generator: Draws them.
    """

    def __init__(
        self, network: nn.Module, weights: Weights, task: Task, size: int, generator: torch.Generator
    ) -> None:
        self.weights = weights
        self.examples = 0
        """How many were drawn so far."""
        self._network, self._task, self._size, self._generator = network, task, size, generator

    def batch(self) -> tuple[Inputs, Tensor]:
        """Augmented training examples that were drawn at random, and their targets."""
        rows = torch.randint(len(self._task.train), (self._size,), generator=self._generator)
        batch: Batch = self._task.train.__getitems__(rows.tolist())
        self.examples += self._size
        return self._task.inputs(batch, torch.device("cpu"), self._generator)

    def loss(self, weights: Weights, batch: tuple[Inputs, Tensor]) -> Tensor:
        """Mean loss of the network with some weights on a batch, in nats; differentiable in the weights."""
        inputs, targets = batch
        return self._task.loss(call(self._network, inputs, weights), targets)[0]


class Objective(ABC):
    """Says how good weights are, and where they should have been instead.

    An objective of your own inherits from this class; its arguments are what ``--objective-settings`` holds.
    """

    @abstractmethod
    def gradient(self, trial: Trial) -> tuple[float, dict[str, Tensor]]:
        """Try a network.

        Returns:
            The loss to report, in nats, and the gradient with respect to ``trial.weights``, by name; a weight that
            doesn't matter may be missing. Nothing is learned from a network whose loss is not finite.
        """


def gradient_of(loss: Tensor, weights: Weights) -> tuple[float, dict[str, Tensor]]:
    """A loss and its gradient with respect to weights that it was computed from."""
    grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    named = zip(weights, grads, strict=True)
    return float(loss.detach()), {name: grad for name, grad in named if grad is not None}
