"""What a hypernetwork keeps of its latest predictions, so that the next ones of the same graphs are quick."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ghn.base.blocks import Block
from ghn.base.sampling import RandomBlock
from ghn.decoder.plan import ParamPlan

if TYPE_CHECKING:
    from ghn.decoder.prediction import Prediction

CACHE_BYTES = 2**26
"""Bytes of numbers that are kept of one graph at most."""

MAX_GRAPHS = 2
"""Graphs that a hypernetwork remembers."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
Factors = list[tuple[Tensor, Tensor]]


class PredictionCache:
    """The latest predictions of a hypernetwork, without parameters: plans, embeddings and numbers of their graphs."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, Prediction] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, make: "Callable[[], Prediction]") -> "Prediction":
        """The prediction under a key, or a new one that takes the place of the one not asked for longest."""
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        entry = self._entries[key] = make()
        if len(self._entries) > MAX_GRAPHS:
            self._entries.popitem(last=False)
        return entry

    def clear(self) -> None:
        """Drop all, so that the next prediction takes as long as a first one."""
        self._entries.clear()

    def __reduce__(self) -> Any:
        return (
            PredictionCache,
            (),
        )  # a copy of a hypernetwork, or one that is sent elsewhere, begins without any


class DecodeCache:
    """Factors and random numbers of one graph, for decoding it again with the same embeddings and weights.

    Args:
        room: Bytes that may be kept.
    """

    def __init__(self, room: int = CACHE_BYTES) -> None:
        self.factors: dict[tuple[int, ...], Factors] = {}
        """Of parameters that go through the generators together, by their numbers: rows and columns of each."""
        self.blocks: dict[tuple[int, int, int], RandomBlock] = {}
        """Random numbers of the latest seed, by it, number of the parameter and first row of the block."""
        self._seed: int | None = None
        self._room = room

    def begin(self, seed: int) -> None:
        """Forget the random numbers of another seed."""
        if self._seed != seed:
            self._room += sum(numbers.nbytes for numbers in list(self.blocks.values()))
            self.blocks.clear()
            self._seed = seed

    def block(
        self, plan: ParamPlan, seed: int, block: Block, device: torch.device, memory: int
    ) -> RandomBlock:
        """The random numbers of one block of a base, on a device; kept as by ``get``."""
        key = seed, plan.number, block.start  # with the seed, as another thread may be at another one
        make = partial(_sample, plan, seed, block, device)
        # From the device if an earlier prediction has left them, else from the CPU.
        return self.get(self.blocks, key, make, lambda numbers: numbers.nbytes, memory).to(device)

    def get(
        self,
        table: dict[Key, Value],
        key: Key,
        make: Callable[[], Value],
        size: Callable[[Value], int],
        memory: int,
    ) -> Value:
        """The entry of a table under a key, or a new one; that is kept if all entries fit a quarter of ``memory``.

        Gradients are never kept, nor are tensors that can't have any later.
        """
        if (entry := table.get(key)) is not None:
            return entry
        entry = make()
        nbytes = size(entry)
        passing = torch.is_grad_enabled() or torch.is_inference_mode_enabled()
        if not passing and CACHE_BYTES - self._room + nbytes <= min(CACHE_BYTES, memory // 4):
            self._room -= nbytes
            table[key] = entry
        return entry


def _sample(plan: ParamPlan, seed: int, block: Block, device: torch.device) -> RandomBlock:
    return plan.sample(seed, block).to(device)
