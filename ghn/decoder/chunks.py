"""Blocks of rows: the unit in which random bases are drawn and weights are written."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK_ROWS = 256
BLOCK_ELEMENTS = 2**22
"""A block ends at whichever comes first. Both are part of the format: changing them changes the numbers."""


def row_blocks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Split a ``(rows, columns)`` matrix into blocks that depend on its shape alone, as (start, stop) rows."""
    step = max(1, min(BLOCK_ROWS, BLOCK_ELEMENTS // max(columns, 1)))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def keyed_generator(device: torch.device, *key: object) -> torch.Generator:
    """Random generator that depends on the key alone, never on what was drawn before.

    Args:
        device: Where numbers are drawn; CPU and CUDA give different numbers for one key.
        key: Seed, parameter name, block start …; their ``str`` is hashed.
    """
    digest = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


def normal_block(seed: int, name: str, start: int, stop: int, columns: int, device: torch.device) -> Tensor:
    """Standard normal numbers for rows ``start`` to ``stop`` of a parameter, shape ``(stop - start, columns)``."""
    generator = keyed_generator(device, seed, name, start)
    return torch.randn(stop - start, columns, generator=generator, device=device)
