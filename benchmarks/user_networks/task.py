"""What a network of the suite is: how it is built, what it is trained on, and by which loss it is judged."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, ...]
Parts = Iterable[tuple[nn.Module, Any]]


def whole_model(model: nn.Module, *batch: Tensor) -> Parts:
    """The model is one module, whose forward pass takes the first tensor of a batch."""
    return [(model, (batch[0],))]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One network and its task, as somebody writes them by hand."""

    build: Callable[[], nn.Module]
    """Constructs the network with its own start, from PyTorch's global generator."""
    loss: Callable[..., Tensor]
    """Loss of the model on a batch's tensors: what is trained, and, in eval mode, what is reported."""
    train: Batch
    """Tensors that share their first axis, of which batches are drawn."""
    test: Batch
    """Tensors like ``train``, never trained on."""
    parts: Callable[..., Parts] = whole_model
    """Modules of the model to initialize, each with its example inputs, given the model and a batch's tensors."""
    measure: Callable[..., Tensor] | None = None
    """What is reported instead of the loss, if that says nothing (a GAN's)."""
    steps: int = 200
    size: int = 64
    """Examples of a batch."""
    stacks: bool = True
    """Whether several are trained at once: ``torch.vmap`` can't do it for torch's recurrent layers, among others."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """An entry of the suite."""

    name: str
    family: str
    rates: tuple[float, ...]
    """Learning rates of Adam that are tried."""
    description: str
    task: Callable[[], Task]


@dataclass(frozen=True)
class Family:
    """Networks whose learning rates are of one grid; calling it registers a function that makes a task."""

    name: str
    rates: tuple[float, ...]
    networks: dict[str, Network] = field(default_factory=dict)

    def __call__(self, task: Callable[[], Task]) -> Callable[[], Task]:
        """Register under the function's name, with its docstring as the description."""
        name = task.__name__.replace("_", "-")
        description = (task.__doc__ or "").strip().rstrip(".")
        self.networks[name] = Network(
            name=name, family=self.name, rates=self.rates, description=description, task=task
        )
        return task


def split(*tensors: Tensor, test: float = 0.25) -> tuple[Batch, Batch]:
    """Shuffle examples, always the same way, and hold a share of them out."""
    order = torch.randperm(len(tensors[0]), generator=torch.Generator().manual_seed(0))
    count = int(test * len(order))
    return tuple(t[order[count:]] for t in tensors), tuple(t[order[:count]] for t in tensors)
