"""Whether a model with predicted weights already knows something about some data."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ghn.errors import DataError, one_line
from ghn.settings import modes_restored
from ghn.tensors import logits_of
from ghn.tracing.inputs import call_arguments

Examples = tuple[Any, Tensor]
"""Inputs, as ``ghn.trace`` reads them, and the right classes."""

DEVIATIONS = 3.0
"""Standard deviations of a guess's number of hits by which a model must beat it: less than one guess in 700 does."""


def check_examples(examples: Examples) -> None:
    """Check what ``beats_chance`` takes before anything is written.

    Raises:
        DataError: If they are no pair, or the classes aren't whole numbers.
    """
    if not isinstance(examples, (tuple, list)) or len(examples) != 2:
        raise DataError(f"examples is {type(examples).__name__}; expected a pair: inputs and their classes")
    targets = examples[1]
    if not isinstance(targets, Tensor) or targets.is_floating_point() or not targets.numel():
        content = (
            f"a {targets.dtype} tensor {tuple(targets.shape)}" if isinstance(targets, Tensor) else targets
        )
        raise DataError(f"the classes of examples are {content}; expected a tensor of whole numbers")


@torch.no_grad()
def beats_chance(model: nn.Module, examples: Examples) -> bool:
    """Whether a model tells the classes of a batch better than the most common class does.

    It runs without dropout and with the batch's own statistics; modes and buffers are as before afterwards.

    Args:
        model: Returns logits, shape ``(…, classes)``, or something with ``.logits``, or a tuple that begins with them.
        examples: What to call it with, and the right classes, shape ``(…)``; negative ones don't count, as in a loss.

    Raises:
        DataError: If the model fails on them, or returns something else.
    """
    inputs, targets = examples
    logits = logits_of(_run(model, inputs))
    guesses, right = logits.argmax(-1).flatten(), targets.to(logits.device).flatten()
    if len(guesses) != len(right):
        raise DataError(
            f"{type(model).__name__} returns logits {tuple(logits.shape)} and their classes are "
            f"{tuple(targets.shape)}; expected a class of each prediction of the examples"
        )
    if len(right) and int(right.max()) >= logits.shape[-1]:
        raise DataError(
            f"the classes of examples go up to {int(right.max())}, and {type(model).__name__} tells "
            f"{logits.shape[-1]}, from 0 to {logits.shape[-1] - 1}"
        )
    guesses, right = guesses[right >= 0], right[right >= 0]
    count = max(1, len(right))
    hits = float((guesses == right).sum()) / count
    chance = float(right.bincount().max()) / count if len(right) else 1.0
    return hits > chance + DEVIATIONS * math.sqrt(chance * (1 - chance) / count)


def _run(model: nn.Module, inputs: Any) -> Any:
    """Call a model as it would be trained, but for dropout, and leave no trace."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    device = next((parameter.device for parameter in model.parameters()), None)
    try:
        args, kwargs = tree_map_only(Tensor, lambda value: value.to(device), call_arguments(inputs))
        with modes_restored(model):
            for module in model.modules():
                module.training = isinstance(module, nn.modules.batchnorm._BatchNorm)
            return model(*args, **kwargs)
    except Exception as error:  # the model's own code may raise anything
        raise DataError(
            f"{type(model).__name__} failed on the examples: {type(error).__name__}: {one_line(error)}"
        ) from error
    finally:
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
