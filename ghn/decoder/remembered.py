"""What a prediction can take from earlier ones instead of making it anew."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from ghn.base.blocks import Block
from ghn.base.sampling import Draw
from ghn.decoder.recipe import Recipe
from ghn.settings import own_settings

if TYPE_CHECKING:
    from ghn.decoder.slots import Cuts

REMEMBERED = 2**26
"""Bytes that are kept at most for the next prediction of the same graph."""

Key = TypeVar("Key")
Kept = TypeVar("Kept")
Factors = list[tuple[Tensor, Tensor]]
Draws = dict[tuple[int, int, int], Draw]
"""Random numbers by seed, number of the parameter and first row of the block."""


@dataclass
class Remembered:
    """What one prediction leaves for the next with the same graph, embeddings and weights; empty at first."""

    recipes: list[Recipe] = field(default_factory=list)
    cuts: "Cuts | None" = None
    """What slots have for the parameters, where a decoder has slots."""
    factors: dict[tuple[int, ...], Factors] = field(default_factory=dict)
    """Of parameters that go through the generators together, by their numbers: rows and columns of each."""
    draws: Draws = field(default_factory=dict)
    """Of the latest seed."""
    seed: int | None = None
    room: int = REMEMBERED
    """Bytes that may still be kept."""

    @property
    def learned(self) -> dict[str, int]:
        """Numbers of the parameters with a learned part, by name."""
        return {recipe.spec.name: recipe.number for recipe in self.recipes if recipe.learned}

    def begin(self, seed: int) -> None:
        """Forget the random numbers of another seed."""
        if self.seed != seed:
            self.room += sum(drawn.nbytes for drawn in list(self.draws.values()))
            self.draws.clear()
            self.seed = seed

    def drawn(self, recipe: Recipe, seed: int, block: Block, device: torch.device, memory: int) -> Draw:
        """The random numbers of one block of a base, on a device; kept as ``recall`` does."""
        key = seed, recipe.number, block.start  # with the seed, as another thread may be at another one
        make = partial(_draw, recipe, seed, block, device)
        # From the device if an earlier prediction has left them, else from the CPU.
        return self.recall(self.draws, key, make, lambda drawn: drawn.nbytes, memory).to(device)

    def recall(
        self,
        kept: dict[Key, Kept],
        key: Key,
        make: Callable[[], Kept],
        size: Callable[[Kept], int],
        memory: int,
    ) -> Kept:
        """What a table holds under a key, or something new; that is kept if all of it fits a quarter of ``memory``.

        Gradients are never kept, nor are tensors that can't have any later.
        """
        if (found := kept.get(key)) is not None:
            return found
        made = make()
        nbytes = size(made)
        passing = torch.is_grad_enabled() or torch.is_inference_mode_enabled()
        if not passing and REMEMBERED - self.room + nbytes <= min(REMEMBERED, memory // 4):
            self.room -= nbytes
            kept[key] = made
        return made


def draw_all(recipes: Sequence[Recipe], seed: int) -> Draws:
    """All random numbers that a prediction with a seed takes, on the CPU: its bases, before their scales.

    By one thread, as the last bits depend on how many there are, and processes beside this one have to find the same.
    """
    threads = torch.get_num_threads()
    with own_settings(), ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(1)
        return {
            (seed, recipe.number, block.start): recipe.draw(seed, block)
            for recipe in recipes
            if recipe.init.random
            for block in recipe.blocks
        }


def _draw(recipe: Recipe, seed: int, block: Block, device: torch.device) -> Draw:
    return recipe.draw(seed, block).to(device)
