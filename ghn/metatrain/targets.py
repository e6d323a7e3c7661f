"""The networks that a run learns from: drawn from a space, built, and traced once."""

import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Data

from ghn.decoder import Remembered
from ghn.decoder.predicted import predicted_params
from ghn.errors import ConfigError, GhnError
from ghn.graph.graph import ComputationGraph
from ghn.graph.trace import trace
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.graphs import Graphs
from ghn.metatrain.tasks import Task
from ghn.spaces import Architecture, Space

AHEAD = 3
"""Targets that each worker draws before they are asked for."""


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
    """What the decoder has made of the graph alone."""
    seed: int
    """Keys the base, and the target's dropout."""
    rng: random.Random
    """What else is random about the target."""

    @property
    def numel(self) -> int:
        """Predicted numbers."""
        return sum(spec.numel for spec in self.graph.params)


@dataclass(frozen=True)
class _Built:
    """A target without its graph."""

    task: str
    key: str
    """Of the graph."""
    model: nn.Module
    seed: int
    rng: random.Random


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
        self._graphs = Graphs(folder)
        self._examples = {name: task.example(_first(task)) for name, task in tasks.items()}

    def draw(self, step: int, number: int) -> Target:
        """Build target ``number`` of update ``step``, on the CPU, with the zoo's own initialization."""
        return self._traced(self._built(step, number))

    def stream(self, places: Iterable[tuple[int, int]], workers: int = 0) -> Generator[Target, None, None]:
        """Draw one target after the other.

        Args:
            places: Update and number in it of each.
            workers: Processes that build and trace ahead, a few targets each; 0 does it when a target is asked for.

        Yields:
            Targets, in the order of their places.

        Raises:
            OutputError: If the folder of graphs can't be written.
        """
        if not workers:
            yield from (self.draw(*place) for place in places)
            return
        loader: DataLoader[bytes | GhnError] = DataLoader(
            _Packed(self, list(places)),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=AHEAD,
            multiprocessing_context="fork",  # they need all that this process has loaded, and leave GPUs alone
            generator=torch.Generator(),  # else the loader would take a random number of everybody's
            worker_init_fn=_end_with_parent,
        )
        for packed in loader:
            if isinstance(packed, GhnError):
                raise packed
            yield self._traced(pickle.loads(packed))

    def _built(self, step: int, number: int) -> _Built:
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
        return _Built(name, self._key(architecture, task), model, rng.getrandbits(31), rng)

    def _traced(self, built: _Built) -> Target:
        known = self._graphs.get(built.key, partial(self._trace, built))
        return Target(built.task, built.model, *known, built.seed, built.rng)

    def _trace(self, built: _Built) -> ComputationGraph:
        return trace(built.model, self._examples[built.task])

    def _key(self, architecture: Architecture, task: Task) -> str:
        sizes = self._config.image_size, self._config.sequence_length
        return f"{architecture.key} {sorted(task.arguments.items())} {sizes}"


def _first(task: Task) -> Any:
    """A batch to trace on, always the same."""
    return next(task.examples.batches(1, 2, torch.Generator().manual_seed(0)))


@contextmanager
def killed_workers_told() -> Iterator[None]:
    """Wrap what takes targets from workers: wherever it is when one is killed, it ends with what to do.

    Raises:
        ConfigError: In place of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise ConfigError(
            f"a process that draws networks was killed, often for memory ({error}); the same command goes on with "
            "fewer --workers, or 0"
        ) from error


def _end_with_parent(worker: int) -> None:
    """Without this, a worker would wait forever for a killed parent to take what it has drawn.

    Ctrl-C is the parent's, which then ends its workers.
    """
    parent = parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A progress bar of the parent would take what a worker says, and may be held at the fork.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__

    def watch() -> None:
        while os.getppid() == parent.pid:
            time.sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


class _Packed(Dataset[bytes | GhnError]):
    """Targets as workers send them."""

    def __init__(self, targets: Targets, places: Sequence[tuple[int, int]]) -> None:
        self._targets, self._places = targets, places
        self._predicted: dict[str, list[str]] = {}  # of each graph, by its key

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> bytes | GhnError:
        """A target without its graph, which is left in the folder, nor the weights that a prediction replaces."""
        try:
            built = self._targets._built(*self._places[index])
            if built.key not in self._predicted:
                graph = self._targets._graphs.graph(built.key, partial(self._targets._trace, built))
                self._predicted[built.key] = [spec.name for spec in predicted_params(graph)]
        except GhnError as error:  # raised here it would arrive with a traceback for a message
            return error
        parameters = dict(built.model.named_parameters())
        stream = BytesIO()
        _Pickler(stream, {id(parameters[name]) for name in self._predicted[built.key]}).dump(built)
        return stream.getvalue()


class _Pickler(pickle.Pickler):
    """Writes tensors as arrays: as torch does it, each takes an open file, or a fifth of a millisecond to read.

    Args:
        stream: Where to write.
        replaced: Identities of the parameters that get stand-ins.
    """

    def __init__(self, stream: BytesIO, replaced: set[int]) -> None:
        super().__init__(stream)
        self._replaced = replaced

    def reducer_override(self, value: Any) -> Any:
        """As the standard library has it."""
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        if id(value) in self._replaced:
            return _stand_in, (tuple(value.shape), value.dtype, value.requires_grad)
        array = value.detach().numpy()
        if isinstance(value, nn.Parameter):
            return _parameter, (array, value.requires_grad)
        return torch.from_numpy, (array,)


def _stand_in(shape: tuple[int, ...], dtype: torch.dtype, requires_grad: bool) -> nn.Parameter:
    return nn.Parameter(torch.zeros((), dtype=dtype).expand(shape), requires_grad)


def _parameter(array: NDArray[Any], requires_grad: bool) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(array), requires_grad)
