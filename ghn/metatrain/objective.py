"""What a prediction is judged by: train the target from it, and say where the prediction should have been.

All objectives are first order: none differentiates through the target's training.

======================  ============================================================================================
``regression``          squared distance to the weights reached (Reptile): made for long horizons
``trajectory``          loss averaged over the whole training, its gradients taken as if they were the prediction's
``after_k``             loss after the last step on fresh data, likewise (first-order MAML)
``step0``               loss of the prediction itself: what graph hypernetworks are classically trained with
======================  ============================================================================================
"""

import math
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.tasks import Task
from ghn.training import make_optimizer, schedule

SMALLEST_VECTOR = 0.1
"""Root mean square below which displacements of biases and the like are measured in absolute terms."""

WARMUP = 0.1
"""Share of a target's steps in which its learning rate rises, before it falls along a cosine."""

WEIGHT_DECAY = 0.05
"""Of a target's matrices."""

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Lesson:
    """What training a target from its prediction taught."""

    loss: Callable[[Parameters], Tensor]
    """Of a prediction for this target: a scalar whose gradient says where it should have been."""
    first_loss: float
    """On the first batch, before any training, in nats."""
    last_loss: float
    """On a batch after the last step, which was not trained on."""


def log_uniform(rng: random.Random, low: float, high: float) -> float:
    """Draw from ``[low, high]`` uniformly on a log scale."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def learn(
    model: nn.Module,
    start: Parameters,
    task: Task,
    config: MetaTrainConfig,
    rng: random.Random,
    autocast: Callable[[], AbstractContextManager[None]],
) -> Lesson:
    """Train a target, in place, as a user would, for a random number of steps at a random rate.

    Args:
        model: With the predicted weights, in place; left with the weights reached.
        start: The predicted weights, which stay as they are.
        task: Where batches come from.
        config: Objective, optimizer, and ranges of steps and rate.
        rng: Draws everything random.
        autocast: Makes the context of forward passes.
    """
    steps = 0 if config.objective == "step0" else round(log_uniform(rng, *config.inner_steps))
    rate = log_uniform(rng, *config.inner_lr)
    # One batch more: the objectives that look at the last weights do so on examples that weren't trained on.
    batches = task.examples.batches(
        steps + 1, config.inner_batch_size, torch.Generator().manual_seed(rng.getrandbits(63))
    )
    parameters = dict(model.named_parameters())
    optimizer = make_optimizer(model, config.inner_optimizer, rate, WEIGHT_DECAY, betas=(0.9, 0.99))
    gradients: dict[str, Tensor] = {}
    losses = []
    model.train()
    for step, batch in enumerate(batches):
        with autocast():
            loss = task.loss(model, batch)
        losses.append(loss.detach())
        if step == steps and config.objective == "regression":
            break
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.objective == "trajectory" or step == steps:
            for name, value in parameters.items():
                if value.grad is not None and name in gradients:
                    gradients[name] += value.grad
                elif value.grad is not None:  # a copy, unless nothing clips it any more
                    gradients[name] = value.grad if step == steps else value.grad.clone()
        if step < steps:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = rate * schedule(step + 1, steps, WARMUP)
            optimizer.step()
    optimizer.zero_grad(set_to_none=True)  # they are the lesson's, wherever the model goes
    first, last = torch.stack([losses[0], losses[-1]]).tolist()
    if config.objective == "regression":
        reached = {name: value.detach().clone() for name, value in parameters.items()}
        return Lesson(lambda predicted: regression_loss(predicted, start, reached), first, last)
    judged = torch.stack(losses if config.objective == "trajectory" else losses[-1:])
    return Lesson(lambda predicted: linear_loss(predicted, start, gradients, judged), first, last)


def regression_loss(predicted: Parameters, start: Parameters, reached: Parameters) -> Tensor:
    """Squared distance from a prediction to the weights that training reached, in units of each tensor's start.

    Its gradient at the start points along the displacement, as Reptile's does; the random base is the same on both
    sides.

    References:
        Reptile, https://arxiv.org/abs/1803.02999
    """
    terms = []
    for name, values in predicted.items():
        # Vectors that start near zero would count for more the closer they are to it.
        floor = SMALLEST_VECTOR**2 if values.dim() < 2 else 0.0
        size = start[name].square().mean().clamp_min(max(floor, torch.finfo(values.dtype).tiny))
        terms.append((values - reached[name]).square().mean() / size)
    return torch.stack(terms).mean()


def linear_loss(predicted: Parameters, start: Parameters, gradients: Parameters, losses: Tensor) -> Tensor:
    """A loss known at the start by its value and gradients: their first-order continuation.

    Args:
        predicted: Where to tell it.
        start: Where it is known.
        gradients: Sums of those of ``losses``; tensors without one don't matter, or are fixed.
        losses: Shape ``(steps,)``, whose mean is the loss.
    """
    value = losses.detach().mean()
    learned = [name for name, values in predicted.items() if values.requires_grad and name in gradients]
    if not learned:
        return value
    now, then, slopes = (
        torch.cat([values[name].flatten() for name in learned]) for values in (predicted, start, gradients)
    )
    return value + ((now - then) * (slopes / len(losses))).sum()
