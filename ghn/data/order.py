"""Which examples make up a batch: a function of seed and step alone, the same for every arm of a comparison."""

import itertools
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ghn.base.blocks import keyed_generator


class Split(Protocol):
    """Examples that can be fetched by number, a batch at a time."""

    in_memory: bool
    """Whether fetching is quick, so that worker processes would only get in the way."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        """Fetch a batch of examples as CPU tensors."""


def batch_order(count: int, batch_size: int, seed: int, steps: int) -> Iterator[list[int]]:
    """Indices of each step's batch: shuffled anew every epoch, the incomplete last batch dropped.

    Args:
        count: Number of examples.
        batch_size: Examples per step; all of them if there are fewer.
        seed: Seed of the run.
        steps: Number of batches to yield.
    """
    size = min(batch_size, count)
    per_epoch = count // size
    for epoch in itertools.count():
        permutation = torch.randperm(
            count, generator=keyed_generator(torch.device("cpu"), "order", seed, epoch)
        )
        for index in range(min(per_epoch, steps - epoch * per_epoch)):
            yield permutation[index * size : (index + 1) * size].tolist()
        if (epoch + 1) * per_epoch >= steps:
            return


def training_batches(
    split: Split, batch_size: int, seed: int, steps: int, share: slice = slice(None), workers: int = 0
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the batches of a run.

    Args:
        split: Where to fetch.
        batch_size: Examples per step, over all processes.
        seed: Seed of the run.
        steps: Number of batches.
        share: Part of each batch that this process takes, such as ``slice(rank, None, world)``.
        workers: Processes that fetch ahead what is not in memory; 0 fetches in this one.
    """
    order = (indices[share] for indices in batch_order(len(split), batch_size, seed, steps))
    return _fetch(split, order, workers)


def evaluation_batches(
    split: Split, batch_size: int, limit: int, share: slice = slice(None), workers: int = 0
) -> Iterator[tuple[Tensor, ...]]:
    """Yield ``limit`` evenly spaced examples of a split in batches, always the same ones."""
    count = min(limit, len(split))
    indices = [index * len(split) // count for index in range(count)][share]
    order = (indices[start : start + batch_size] for start in range(0, len(indices), batch_size))
    return _fetch(split, order, workers)


def _fetch(split: Split, order: Iterator[list[int]], workers: int) -> Iterator[tuple[Tensor, ...]]:
    # A generator of its own: the loader would otherwise draw from (and so advance) the run's random numbers.
    loader: DataLoader[Any] = DataLoader(
        split,  # type: ignore[arg-type]
        batch_sampler=order,  # the loader only iterates over it, once
        num_workers=0 if split.in_memory else workers,
        collate_fn=_same,
        generator=torch.Generator(),
    )
    return iter(loader)


def _same(batch: Any) -> Any:
    return batch
