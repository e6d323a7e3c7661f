"""What a prediction can take from earlier ones instead of making it anew."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from ghn.base.blocks import Block
from ghn.base.sampling import Draw
from ghn.decoder.plan import ParamPlan

if TYPE_CHECKING:
    from ghn.decoder.slots import Cuts

REMEMBERED = 2**26
"""Bytes that are kept at most for the next prediction of the same graph."""

Key = TypeVar("Key")
Kept = TypeVar("Kept")
Factors = list[tuple[Tensor, Tensor]]


@dataclass
class Remembered:
    """What one prediction leaves for the next with the same graph, embeddings and weights; empty at first."""

    plans: list[ParamPlan] = field(default_factory=list)
    cuts: "Cuts | None" = None
    """What slots have for the parameters, where a decoder has slots."""
    factors: dict[tuple[int, ...], Factors] = field(default_factory=dict)
    """Of parameters that go through the generators together, by their numbers: rows and columns of each."""
    draws: dict[tuple[int, int, int], Draw] = field(default_factory=dict)
    """Random numbers of the latest seed, by it, number of the parameter and first row of the block."""
    seed: int | None = None
    room: int = REMEMBERED
    """Bytes that may still be kept."""

    def begin(self, seed: int) -> None:
        """Forget the random numbers of another seed."""
        if self.seed != seed:
            self.room += sum(drawn.nbytes for drawn in list(self.draws.values()))
            self.draws.clear()
            self.seed = seed

    def drawn(self, plan: ParamPlan, seed: int, block: Block, device: torch.device, memory: int) -> Draw:
        """The random numbers of one block of a base, on a device; kept as ``recall`` does."""
        key = seed, plan.number, block.start  # with the seed, as another thread may be at another one
        make = partial(_draw, plan, seed, block, device)
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


def _draw(plan: ParamPlan, seed: int, block: Block, device: torch.device) -> Draw:
    return plan.draw(seed, block).to(device)
