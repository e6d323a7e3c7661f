"""The networks that a run learns from: drawn from a space, built, and traced once."""

import random
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_geometric.data import Data

from ghn.decoder import Draws, Recipe, Remembered, draw_all
from ghn.graph.graph import ComputationGraph
from ghn.graph.trace import trace
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.graphs import Graphs
from ghn.metatrain.tasks import Task
from ghn.spaces import Architecture, Space


@dataclass(frozen=True)
class Target:
    """One network of an update."""

    task: str
    model: nn.Module
    """Its buffers and what can't be predicted are as built; other parameters may be stand-ins without memory."""
    graph: ComputationGraph
    data: Data
    """Features of the graph."""
    remembered: Remembered
    """What the decoder needs that doesn't depend on the hypernetwork's weights."""
    seed: int
    """Keys the base, and the target's dropout."""
    rng: random.Random
    """What else is random about the target."""

    @property
    def numel(self) -> int:
        """Predicted numbers."""
        return sum(spec.numel for spec in self.graph.params)


@dataclass(frozen=True)
class Built:
    """A target without its graph: what has to be sent of it."""

    task: str
    key: str
    """Of the graph."""
    model: nn.Module
    seed: int
    rng: random.Random
    draws: Draws = field(default_factory=dict)
    """Random numbers of its prediction; empty before they are drawn."""


class Targets:
    """Draws targets; every draw is a function of the seed, the update and the target's number in it.

    Args:
        config: Settings of the run.
        tasks: Its data, by name.
        folder: Where traced graphs are kept for later calls; None for nowhere.
    """

    def __init__(self, config: MetaTrainConfig, tasks: dict[str, Task], folder: Path | None = None) -> None:
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
        self._graphs = Graphs(config.ghn.decoder, folder)
        self._examples = {name: task.example(_first(task)) for name, task in tasks.items()}

    def draw(self, step: int, number: int) -> Target:
        """Build target ``number`` of update ``step``, on the CPU, with the zoo's own initialization.

        Raises:
            OutputError: If the folder can't be written.
        """
        return self.finish(self.build(step, number))

    def build(self, step: int, number: int) -> Built:
        """Target ``number`` of update ``step`` without its graph."""
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
        return Built(name, self._key(architecture, task), model, rng.getrandbits(31), rng)

    def recipes(self, built: Built) -> list[Recipe]:
        """What its parameters are made of; its graph is left in the folder, and not in memory.

        Raises:
            OutputError: If the folder can't be written.
        """
        return self._graphs.recipes(built.key, partial(self._trace, built))

    def finish(self, built: Built) -> Target:
        """With its graph, from memory, the folder, or traced now.

        Raises:
            OutputError: If the folder can't be written.
        """
        graph, data, made_of = self._graphs.get(built.key, partial(self._trace, built))
        draws = built.draws or draw_all(made_of, built.seed)
        remembered = Remembered(recipes=made_of, draws=draws, seed=built.seed, room=0)
        return Target(built.task, built.model, graph, data, remembered, built.seed, built.rng)

    def _trace(self, built: Built) -> ComputationGraph:
        return trace(built.model, self._examples[built.task])

    def _key(self, architecture: Architecture, task: Task) -> str:
        sizes = self._config.image_size, self._config.sequence_length
        return f"{architecture.key} {sorted(task.arguments.items())} {sizes}"


def _first(task: Task) -> Any:
    """A batch to trace on, always the same."""
    return next(task.examples.batches(1, 2, torch.Generator().manual_seed(0)))
