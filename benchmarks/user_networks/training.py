"""Training of several networks of one task at once: their weights lie in one tensor, and each learns by itself."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from user_networks.task import Batch, Task

NEAR = 0.02
"""Share of the steps between two of three evaluations."""

CHUNK = 8
"""Networks that are evaluated at once, which bounds the memory."""

Loss = Callable[..., Tensor]


class LossModule(nn.Module):
    """A network and what is asked of it, as one module."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *batch: Tensor) -> Tensor:
        """The loss, a number."""
        return self.loss(self.model, *batch)


class Stack:
    """Networks of one kind, a slice of each weight for each of them."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.model = models[0]
        parameters, buffers = (
            [dict(m.named_parameters()) for m in models],
            [dict(m.named_buffers()) for m in models],
        )
        self.weights: dict[str, Tensor] = {}
        """Weights that are trained, by name, stacked along the first axis."""
        self.others: dict[str, Tensor] = {}
        """Frozen weights, and buffers, which forward passes write to."""
        for tensors in (parameters, buffers):
            for name, first in tensors[0].items():
                stack = torch.stack([tensor[name].detach() for tensor in tensors])
                (self.weights if first.requires_grad else self.others)[name] = stack.requires_grad_(
                    first.requires_grad
                )

    def losses(self, loss: Loss, batch: Batch) -> Tensor:
        """Loss of each network on its own batch, whose tensors have the networks as their first axis."""
        return self._map(loss, batch, 0, "different")

    @torch.no_grad()
    def evaluate(self, loss: Loss, batch: Batch) -> Tensor:
        """Loss of each network on the same batch with the same noise."""
        return self._map(loss, batch, None, "same", chunk_size=CHUNK)

    def _map(self, loss: Loss, batch: Batch, axis: int | None, randomness: str, **kwargs: int) -> Tensor:
        module = LossModule(self.model, loss)

        def one(tensors: dict[str, Tensor], batch: Batch) -> Tensor:
            return functional_call(
                module, {f"model.{name}": tensor for name, tensor in tensors.items()}, batch
            )

        function = vmap(one, in_dims=(0, axis), randomness=randomness, **kwargs)
        return function({**self.weights, **self.others}, batch)


class Single:
    """One network, as a stack of one: for layers that can't be stacked."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}

    def losses(self, loss: Loss, batch: Batch) -> Tensor:
        """As a stack's."""
        return loss(self.model, *(tensor[0] for tensor in batch))[None]

    def evaluate(self, loss: Loss, batch: Batch) -> Tensor:
        """As a stack's."""
        return loss(self.model, *batch).detach()[None]


def batches(task: Task, seed: int) -> Iterator[Tensor]:
    """Numbers of the examples of each batch, all of one size, in an order that depends on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(task.train[0]), generator=generator).split(task.size)
        yield from order[:-1] if len(order) > 1 else order


def evaluate(networks: Stack | Single, task: Task) -> list[float]:
    """Losses of what is not trained on, with the same noise each time; infinite where they are no numbers."""
    networks.model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        losses = networks.evaluate(task.measure or task.loss, task.test).tolist()
    networks.model.train()
    return [loss if math.isfinite(loss) else math.inf for loss in losses]


def train(
    models: Sequence[nn.Module], task: Task, rate: float, seeds: Sequence[int]
) -> list[tuple[float, float]]:
    """Train networks, each in the order of its seed; losses of each around a tenth of the steps and at the end."""
    if not task.stacks and len(models) > 1:
        return [
            pair
            for model, seed in zip(models, seeds, strict=True)
            for pair in train([model], task, rate, [seed])
        ]
    networks = Stack(models) if task.stacks else Single(models[0])
    torch.manual_seed(seeds[0])
    optimizer = torch.optim.Adam(networks.weights.values(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.steps)
    near = max(1, round(NEAR * task.steps))
    early, late = ({at - near, at, at + near} for at in (round(0.1 * task.steps), task.steps - near))
    losses: dict[int, list[float]] = {}
    orders = [batches(task, seed) for seed in seeds]
    for step in range(1, task.steps + 1):
        rows = torch.stack([next(order) for order in orders])
        optimizer.zero_grad()
        networks.losses(task.loss, tuple(tensor[rows] for tensor in task.train)).sum().backward()
        optimizer.step()
        schedule.step()
        if step in early | late:
            losses[step] = evaluate(networks, task)
    means = (
        [statistics.fmean(numbers) for numbers in zip(*(losses[s] for s in steps), strict=True)]
        for steps in (early, late)
    )
    return list(zip(*means, strict=True))
