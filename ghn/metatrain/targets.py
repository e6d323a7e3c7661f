"""The networks that a run learns from: drawn from a space, built, and traced once."""

import random
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn
from torch_geometric.data import Data

from ghn.decoder import Remembered
from ghn.graph.graph import ComputationGraph
from ghn.graph.trace import trace
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.tasks import Task
from ghn.spaces import Space

GRAPHS_KEPT = 4096
"""Traced graphs with their features that a process keeps in memory; up to 1.6 MB each at scale 'full'."""


@dataclass(frozen=True)
class Target:
    """One network of an update."""

    task: str
    model: nn.Module
    graph: ComputationGraph
    data: Data
    """Features of the graph."""
    remembered: Remembered
    """What the decoder has made of the graph alone."""
    seed: int
    """Keys the base, and the target's dropout."""
    rng: random.Random
    """What else is random about the target."""

    @property
    def numel(self) -> int:
        """Predicted numbers."""
        return sum(spec.numel for spec in self.graph.params)


class Targets:
    """Draws targets; every draw is a function of the seed, the update and the target's number in it."""

    def __init__(self, config: MetaTrainConfig, tasks: dict[str, Task]) -> None:
        self._config = config
        self._tasks = tasks
        self._spaces = {
            name: Space(
                scale=config.scale,
                image_size=config.image_size,
                sequence_length=config.sequence_length,
                vocabulary=task.width,
            )
            for name, task in tasks.items()
        }
        self._graphs: OrderedDict[str, tuple[ComputationGraph, Data, Remembered]] = OrderedDict()

    def draw(self, step: int, number: int) -> Target:
        """Build target ``number`` of update ``step``, on the CPU, with the zoo's own initialization."""
        config = self._config
        rng = random.Random(f"{config.seed}/{step}/{number}")
        # Every kind of data in turn, so that even a short run sees them all.
        names = sorted(self._tasks)
        turn = step * (config.targets_per_step // config.bases) + number // config.bases
        name = names[turn % len(names)]
        task = self._tasks[name]
        drawn = random.Random(f"{config.seed}/{turn}").randrange(config.networks)
        architecture = self._spaces[name].draw(task.kind, drawn, config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.getrandbits(31))  # parameters that can't be predicted keep their own values
            model = architecture.build(**task.arguments)
        return Target(name, model, *self._traced(architecture.key, model, task), rng.getrandbits(31), rng)

    def _traced(self, key: str, model: nn.Module, task: Task) -> tuple[ComputationGraph, Data, Remembered]:
        if key not in self._graphs:
            batch = next(task.examples.batches(1, 2, torch.Generator().manual_seed(0)))
            graph = trace(model, task.example(batch))
            self._graphs[key] = graph, graph.to_pyg(), Remembered(room=0)
            if len(self._graphs) > GRAPHS_KEPT:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return self._graphs[key]
