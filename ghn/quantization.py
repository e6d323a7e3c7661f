"""Tables in eight bits: a step per row, so that checkpoints stay small and come back the same each time."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ghn.checkpoints import Stored

STEP = ".step"
"""Ending of the names of the steps, beside the tables that they belong to."""

LEVELS = 127
"""Of either sign."""


def quantize(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Bring matrices whose names begin with ``prefix`` to int8, with a float32 step per row; the others stay.

    What ``restore`` makes of the result is quantized to the same numbers again.
    """
    made: dict[str, Tensor] = {}
    for name, values in tensors.items():
        if values.dim() != 2 or not name.startswith(prefix) or not values.is_floating_point():
            made[name] = values
            continue
        step = values.abs().amax(1) / LEVELS
        made[name] = (values / step.clamp_min(torch.finfo(step.dtype).tiny)[:, None]).round().to(torch.int8)
        made[name + STEP] = step
    return made


def is_table(name: str, stored: Mapping[str, Stored]) -> bool:
    """Whether a tensor among those of a file is in eight bits, with a step for each row."""
    entry, step = stored[name], stored.get(name + STEP)
    return (
        step is not None and entry.dtype == "I8" and len(entry.shape) == 2 and step.shape == entry.shape[:1]
    )


def is_step(name: str, stored: Mapping[str, Stored]) -> bool:
    """Whether a tensor among those of a file holds the steps of a table."""
    table = name.removesuffix(STEP)
    return table != name and table in stored and is_table(table, stored)


def restore(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo ``quantize``, up to rounding."""
    return {
        name: values * tensors[name + STEP][:, None] if name + STEP in tensors else values
        for name, values in tensors.items()
        if not name.endswith(STEP)
    }
