"""Where a row or column of a parameter sits, as numbers that a generator of factors reads."""

import math
from functools import lru_cache

import torch
from torch import Tensor

FREQUENCIES = 6
"""Octaves of the position encoding; the finest wave is 1/32 of the axis, or 2 pi * 32 positions, long."""

POSITION_SLOTS = 4
"""Axes of one side that get a position encoding: two counted axes and two spatial ones."""

POSITION_FEATURES = POSITION_SLOTS * 4 * FREQUENCIES
"""Width of ``axis_positions``."""


MAX_REMEMBERED = 4096
"""Positions up to which their encodings are kept for the next tensor, at 400 bytes each."""


def axis_positions(
    sizes: tuple[int, ...], spatial: int, device: torch.device, start: int = 0, stop: int | None = None
) -> Tensor:
    """Encode where each row (or column) sits: waves over relative and absolute position along up to four axes.

    Args:
        sizes: Sizes of the side's axes; their product is the number of positions.
        spatial: How many of the last axes are spatial.
        device: Where the result lives.
        start: First position.
        stop: One past the last position; None is the end.

    Returns:
        Encodings of norm independent of the position, shape ``(stop - start, POSITION_FEATURES)``.
    """
    stop = math.prod(sizes) if stop is None else stop
    make = _remembered_positions if stop - start <= MAX_REMEMBERED else _positions
    return make(sizes, spatial, start, stop, device)


@torch.inference_mode(False)  # they are kept, also for calls that record gradients
def _positions(sizes: tuple[int, ...], spatial: int, start: int, stop: int, device: torch.device) -> Tensor:
    counted, kernel = sizes[: len(sizes) - spatial], sizes[len(sizes) - spatial :]
    # Axes past the slots' number join the one before them.
    slots = [*_merge(counted, 2), *_merge(kernel, 2)]
    index, places = torch.arange(start, stop), []
    for size in reversed(slots):
        places.append(index % size)
        index = index // size
    waves = [_waves(place, size) for place, size in zip(reversed(places), slots, strict=True)]
    return torch.cat(waves, -1).to(device)


_remembered_positions = lru_cache(maxsize=32)(_positions)


def _merge(sizes: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Exactly ``count`` sizes with the same product: ones in front, or the first ones multiplied."""
    padded = (1,) * (count - len(sizes)) + sizes
    return (math.prod(padded[: len(padded) - count + 1]), *padded[len(padded) - count + 1 :])


def _waves(index: Tensor, size: int) -> Tensor:
    octaves = 2.0 ** torch.arange(FREQUENCIES)
    relative = (index.float() + 0.5)[:, None] / size * math.pi * octaves
    absolute = index.float()[:, None] / octaves
    angles = torch.cat([relative, absolute], dim=-1)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
