"""The networks that a run learns from and is validated on: sampled from a target space, traced, and cut out."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import torch
from torch import Tensor, nn

from ghn.decoder.config import DecoderConfig
from ghn.decoder.plan import ParamPlan, plan_parameters
from ghn.decoder.slots import CutParam, SlotBank
from ghn.errors import ConfigError, GhnError, did_you_mean, one_line
from ghn.graph.graph import ComputationGraph
from ghn.graph.ops import MIXING_ROLES
from ghn.metatrain.config import SamplingConfig
from ghn.metatrain.graph_store import GraphStore
from ghn.metatrain.processes import Processes
from ghn.spaces import LARGEST, Architecture, TargetSpace
from ghn.tasks import Task
from ghn.tracing.trace import trace
from ghn.user_code import blamed

SHARED_WITH = {"llama": "gpt2", "vit_relpos": "vit"}
"""Families that share the slots of another."""

SLOW = frozenset({"gmlp", "metaformer", "mixer", "mobilevit", "pyramid_vit", "resmlp", "vit", "vit_relpos"})
"""Families whose networks take about three times as long as convolutional ones, and are drawn by ``slow_weight``. By
name, so that what a family gets doesn't change with the sizes that were drawn."""

WORK_OF_AN_OPERATION = 9000.0
"""Multiplications of an example that take as long as starting an operation: fitted to 90 networks on a core, with 64
examples at a time. Then ``work`` is off by a quarter, where networks differ by a factor of 2.4 (deviations of the
logarithm)."""

VALIDATION_DRAWS = 400
"""Networks that are looked through for those to validate."""


@dataclass(frozen=True)
class Target:
    """A network with what it takes to cut its weights out."""

    family: str
    network: nn.Module
    """Parameters without slots are as the zoo starts them, the others are stand-ins without memory."""
    params: list[CutParam]


class Sampler:
    """The networks of one kind of data, numbered; negative numbers are for validation.

    Args:
        config: Which.
        task: What they are tried on.
        spaces: What they are drawn from; the second, if any, every ``full_every``-th time.
        graphs: Where traces are kept.
        seed: Keys the draws.
    """

    def __init__(
        self,
        config: SamplingConfig,
        task: Task,
        spaces: Sequence[TargetSpace],
        graphs: GraphStore,
        seed: int,
    ) -> None:
        for family in () if config.space else config.left_out:
            if family not in LARGEST:
                raise ConfigError(
                    f"left_out has no family {family!r}; expected some of {', '.join(LARGEST)}."
                    f"{did_you_mean(family, LARGEST)}"
                )
        self._config, self._task, self._spaces, self._graphs = config, task, spaces, graphs
        self._seed = seed
        self._example = task.example()
        self._target = lru_cache(maxsize=2 * config.networks)(self._make)
        self.work = lru_cache(maxsize=2 * config.networks)(self._work)
        self.architecture = lru_cache(maxsize=2 * config.networks)(self._draw)

    def _draw(self, number: int) -> Architecture:
        """Network ``number``; families that are left out only have negative ones."""
        config = self._config
        full = len(self._spaces) > 1 and config.full_every and number >= 0 and number % config.full_every == 0
        space = self._spaces[1 if full else 0]
        seed = self._seed if number >= 0 else self._seed + 1
        for attempt in range(1000):
            rng = random.Random(f"{self._task.kind}/{seed}/{abs(number) * 1000 + attempt}")
            with blamed(config.space or "space"):
                architecture = space.sample(rng)
            if not isinstance(architecture, Architecture):
                raise ConfigError(
                    f"{config.space!r} sampled {type(architecture).__name__}; expected ghn.spaces.Architecture"
                )
            if number < 0 or architecture.family not in config.left_out:
                return architecture
        raise ConfigError(f"left_out={config.left_out} leaves no family to train on; leave fewer out")

    @cached_property
    def by_family(self) -> dict[str, list[int]]:
        """Numbers of the networks to train on, by family."""
        numbers: dict[str, list[int]] = {}
        for number in range(self._config.networks):
            if sum(spec.numel for spec in self.graph(number).params) <= self._config.largest:
                numbers.setdefault(self.architecture(number).family, []).append(number)
        if not numbers:
            raise ConfigError(
                f"no network for {self._task.kind} has at most largest={self._config.largest} parameters; raise it"
            )
        return numbers

    def sample(self, rng: random.Random) -> int:
        """Draw a family, then the number of one of its networks."""
        families = sorted(self.by_family)
        weights = [self._config.slow_weight if family in SLOW else 1.0 for family in families]
        return rng.choice(self.by_family[rng.choices(families, weights)[0]])

    def _work(self, number: int) -> float:
        """About how long a network takes, in multiplications of an example."""
        graph = self.graph(number)
        work = len(graph.nodes) * WORK_OF_AN_OPERATION
        for spec in graph.params:
            if spec.node is None or spec.role not in MIXING_ROLES:
                continue
            channels = math.prod(
                size for size, axis in zip(spec.shape, spec.axes, strict=True) if axis == "out"
            )
            results = (math.prod(graph.nodes[reader].shape[1:]) for reader in graph.readers(spec.node))
            work += spec.numel / max(1, channels) * max(results, default=0)
        return work

    def validation(self) -> list[int]:
        """Numbers of the networks to validate, a few of each family."""
        counts: dict[str, int] = {}
        numbers = []
        for number in range(-1, -VALIDATION_DRAWS - 1, -1):
            family = self.architecture(number).family
            if counts.get(family, 0) < self._config.validation_networks:
                counts[family] = counts.get(family, 0) + 1
                numbers.append(number)
        return numbers

    def family(self, number: int) -> str:
        """Whose slots a network uses."""
        family = self.architecture(number).family
        return SHARED_WITH.get(family, family)

    def training(self) -> Iterator[tuple[str, ComputationGraph, Sequence[ParamPlan]]]:
        """Family of slots, graph, and what its parameters are made of, of each network to train on."""
        for numbers in self.by_family.values():
            for number in numbers:
                graph = self.graph(number)
                yield self.family(number), graph, plan_parameters(graph, DecoderConfig(scope="all"))

    def trace(self, processes: Processes) -> None:
        """Leave the graphs of all networks to train on in the run's folder; each process traces a share of them."""
        for number in processes.share(range(self._config.networks)):
            self.graph(number)
        processes.gather([])

    def graph(self, number: int) -> ComputationGraph:
        """The graph of a network, traced or read from the run's folder."""
        architecture = self.architecture(number)
        example = self._example
        values = example.values() if isinstance(example, Mapping) else example
        shapes = [tuple(value.shape) for value in values if isinstance(value, Tensor)]
        key = f"{architecture.key} {sorted(self._task.arguments.items())} {shapes}"
        return self._graphs.graph(key, partial(self._trace, architecture))

    def _trace(self, architecture: Architecture) -> ComputationGraph:
        try:
            return trace(architecture.build(**self._task.arguments), self._example)
        except GhnError as error:
            raise ConfigError(
                f"a network of {self._config.space or 'the space'!r} ({architecture.spec} with "
                f"{dict(architecture.kwargs)}) doesn't go with the task {self._task.name!r}: {one_line(error)}"
            ) from error

    def target(self, number: int, bank: SlotBank) -> Target:
        """A network to train or validate on, with the cuts of a bank; kept in memory once made."""
        return self._target(number, bank)

    def _make(self, number: int, bank: SlotBank) -> Target:
        graph, family = self.graph(number), self.family(number)
        if family not in bank.families:
            family = bank.family(graph)[0]
        cut_params = [
            cut_param
            for cut_param in bank.cut_params(
                graph, plan_parameters(graph, DecoderConfig(scope="all")), family
            )
            if cut_param.cuts
        ]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = self.architecture(number).build(**self._task.arguments)
        network.train().requires_grad_(False)
        network.to(memory_format=torch.channels_last)
        cut_out = {cut_param.plan.spec.name for cut_param in cut_params}
        for name, value in network.named_parameters():
            if name in cut_out:
                value.data = torch.empty(0)
        return Target(family, network, cut_params)
