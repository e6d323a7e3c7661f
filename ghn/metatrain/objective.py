"""Long-horizon regression: pull predictions towards where training takes them."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.tasks import Task

SMALLEST_VECTOR = 0.1
"""Root mean square below which displacements of biases and the like are measured in absolute terms."""


@dataclass(frozen=True)
class Adaptation:
    """What training a target from its predicted weights led to."""

    parameters: dict[str, Tensor]
    """Weights reached, by name."""
    first_loss: float
    last_loss: float
    """Training loss of the first and last step, in nats."""


def log_uniform(rng: random.Random, low: float, high: float) -> float:
    """Draw from ``[low, high]`` uniformly on a log scale."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def adapt(
    model: nn.Module, task: Task, config: MetaTrainConfig, rng: random.Random, generator: torch.Generator
) -> Adaptation:
    """Train a target, in place, as a user would: AdamW with clipping, for a random number of steps and rate.

    Args:
        model: With the predicted weights; left with the weights reached.
        task: Where batches come from.
        config: Ranges of steps and rate.
        rng: Draws them.
        generator: Draws batches.
    """
    steps = round(log_uniform(rng, *config.inner_steps))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=log_uniform(rng, *config.inner_lr), betas=(0.9, 0.99)
    )
    losses = []
    model.train()
    for _ in range(steps):
        loss = task.loss(model, task.batch(config.inner_batch_size, generator))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    reached = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return Adaptation(reached, losses[0], losses[-1])


def regression_loss(predicted: Mapping[str, Tensor], reached: Mapping[str, Tensor]) -> Tensor:
    """Squared distance from predictions to the weights that training reached, each tensor in units of its own size.

    Its gradient points along the displacement, as Reptile's does; the random base is the same on both sides.

    References:
        Reptile, https://arxiv.org/abs/1803.02999
    """
    terms = []
    for name, values in predicted.items():
        # Vectors that start near zero would count for more the closer they are to it.
        floor = SMALLEST_VECTOR**2 if values.dim() < 2 else 0.0
        size = values.detach().square().mean().clamp_min(max(floor, torch.finfo(values.dtype).tiny))
        terms.append((values - reached[name]).square().mean() / size)
    return torch.stack(terms).mean()
