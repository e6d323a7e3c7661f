"""What a hypernetwork says about one graph: parameters, and statistics of them."""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from ghn.base import Decision
from ghn.decoder.cache import DecodeCache
from ghn.decoder.decoder import Decoder
from ghn.decoder.plan import GraphPlan, Learned
from ghn.decoder.slices import MEMORY, ParamSlice, Wanted, collect
from ghn.decoder.slot_decoder import SlotDecoder
from ghn.graph.graph import ComputationGraph
from ghn.settings import own_settings


class Prediction:
    """The parameters of one graph, decoded when they are asked for: whole, or in slices.

    Args:
        decoder: Of the hypernetwork.
        plan: What the parameters are made of.
        embeddings: As ``Decoder.stream`` takes them.
        seed: Keys the random base.
        learned: How much of what was learned it takes.
        cache: What slices are decoded with, if they are to be quick the next time.
    """

    def __init__(
        self,
        decoder: Decoder | SlotDecoder,
        plan: GraphPlan,
        embeddings: Tensor,
        seed: int = 0,
        learned: Learned = True,
        cache: DecodeCache | None = None,
    ) -> None:
        self._decoder, self._plan, self._embeddings, self._cache = decoder, plan, embeddings, cache
        self.seed, self.learned = seed, learned

    def like(self, seed: int, learned: Learned) -> "Prediction":
        """Another one of the same graph, with the same cache."""
        return Prediction(self._decoder, self._plan, self._embeddings, seed, learned, self._cache)

    @property
    def graph(self) -> ComputationGraph:
        """The target."""
        return self._plan.graph

    @property
    def device(self) -> torch.device:
        """Where parameters are made."""
        return self._embeddings.device

    @cached_property
    def params(self) -> dict[str, Tensor]:
        """Float32 tensors by ``ParamSpec.name``, those of ``predicted_params`` in their order."""
        return collect(self.graph.params, self.stream())

    def stream(
        self, memory: int = MEMORY, wanted: Wanted | None = None, keep: bool = True
    ) -> Iterator[ParamSlice]:
        """The parameters in slices that take a bounded amount of memory; see ``Decoder.stream``.

        Args:
            memory: Bytes to take beside the results, roughly.
            wanted: Which rows of a parameter are needed; all of them if None.
            keep: Whether factors and random numbers are kept for the next time.
        """
        cache = self._cache if keep else None
        return self._decoder.stream(
            self._plan, self._embeddings, self.seed, self.learned, memory, wanted, cache
        )

    @property
    def decisions(self) -> dict[str, Decision]:
        """By which rule each parameter starts, by name."""
        return {
            param.spec.name: Decision(param.init, param.rule, param.modifiers) for param in self._plan.params
        }

    @property
    def fades(self) -> bool:
        """Whether what was learned fades out with depth."""
        return self._decoder.fades(self._plan, self.learned)

    @torch.no_grad()
    @own_settings()
    def learned_shares(self) -> tuple[dict[str, float], str]:
        """Share of each parameter's variance that is learned, by name, and where it is from, or why there is none."""
        if not self.learned:
            return {}, "the base was asked for"
        return self._decoder.learned_shares(self._plan, self._embeddings, self.learned)
