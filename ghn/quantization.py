"""Tables in eight or four bits: a step per row, so that checkpoints stay small and come back the same each time."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ghn.checkpoints import Stored

STEP = ".step"
"""Ending of the names of the steps, beside the tables that they belong to."""

QUANTIZED = ("I8", "U8")
"""Types, as files name them, of tables in eight and in four bits."""

LEVELS = {8: 127, 4: 7}
"""Of either sign, by bits."""


def quantize(tensors: Mapping[str, Tensor], bits: Mapping[str, int]) -> dict[str, Tensor]:
    """Bring matrices to whole numbers, with a step of half precision per row.

    What ``restore`` makes of the result is quantized to the same numbers again.

    Args:
        tensors: By name.
        bits: 8 or 4 by name of the matrices that are quantized, 16 of what is stored in half precision; the others
            stay. Pairs of neighbours in a row of four bits are packed into a byte.
    """
    stored: dict[str, Tensor] = {}
    for name, values in tensors.items():
        if name not in bits:
            stored[name] = values
            continue
        if bits[name] == 16:
            stored[name] = values.half()
            continue
        levels = LEVELS[bits[name]]
        step = (values.abs().amax(1) / levels).half()
        rounded = (values / step.float()[:, None]).round().clamp(-levels, levels)
        whole = torch.where(step[:, None] > 0, rounded, 0.0).to(torch.int8)
        stored[name] = whole if bits[name] == 8 else _pack(whole)
        stored[name + STEP] = step
    return stored


def is_table(name: str, stored: Mapping[str, Stored]) -> bool:
    """Whether a tensor among those of a file is quantized, with a step for each row."""
    entry, step = stored[name], stored.get(name + STEP)
    return (
        step is not None
        and entry.dtype in QUANTIZED
        and len(entry.shape) == 2
        and step.shape == entry.shape[:1]
    )


def shape_in_file(shape: tuple[int, ...], entry: Stored) -> tuple[int, ...]:
    """What the shape of a tensor is in a file that has it in some type."""
    return (shape[0], (shape[1] + 1) // 2) if entry.dtype == "U8" and len(shape) == 2 else shape


def is_step(name: str, stored: Mapping[str, Stored]) -> bool:
    """Whether a tensor among those of a file holds the steps of a table."""
    table = name.removesuffix(STEP)
    return table != name and table in stored and is_table(table, stored)


def restore(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo ``quantize``, up to rounding."""
    return {
        name: _unpack(values) * tensors[name + STEP].float()[:, None] if name + STEP in tensors else values
        for name, values in tensors.items()
        if not name.endswith(STEP)
    }


def _pack(values: Tensor) -> Tensor:
    """Numbers from -7 to 7, two in a byte; zero is 8, and a lone last one has 0 beside it, which is no number."""
    coded = torch.nn.functional.pad((values + 8).to(torch.uint8), (0, values.shape[1] % 2))
    return coded[:, ::2] * 16 + coded[:, 1::2]


def _unpack(values: Tensor) -> Tensor:
    if values.dtype != torch.uint8:
        return values
    coded = torch.stack([values // 16, values % 16], dim=2).flatten(1)
    if coded.shape[1] and not coded[:, -1].any():
        coded = coded[:, :-1]
    return coded.to(torch.int8) - 8
