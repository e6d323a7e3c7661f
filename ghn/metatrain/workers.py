"""Targets for an update, drawn when they are asked for, or ahead by other processes."""

import os
import pickle
import signal
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from multiprocessing import parent_process
from threading import Thread
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ghn.decoder import draw_all
from ghn.errors import ConfigError, GhnError
from ghn.metatrain.targets import Target, Targets

AHEAD = 3
"""Targets that each worker draws before they are asked for."""


def stream(
    targets: Targets, places: Iterable[tuple[int, int]], workers: int = 0
) -> Generator[Target, None, None]:
    """Draw one target after the other.

    Args:
        targets: What to draw from.
        places: Update and number in it of each.
        workers: Processes that build, trace and draw random numbers ahead, for a few targets each; 0 does it when a
            target is asked for.

    Yields:
        Targets, in the order of their places.

    Raises:
        OutputError: If the folder of graphs can't be written.
    """
    if not workers:
        yield from (targets.draw(*place) for place in places)
        return
    loader: DataLoader[bytes | GhnError] = DataLoader(
        _Packed(targets, list(places)),
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
        yield targets.finish(pickle.loads(packed))


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

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> bytes | GhnError:
        """A target without its graph, which is left in the folder, nor the weights that a prediction replaces."""
        try:
            built = self._targets.build(*self._places[index])
            made_of = self._targets.recipes(built)
        except GhnError as error:  # raised here it would arrive with a traceback for a message
            return error
        parameters = dict(built.model.named_parameters())
        replaced = {id(parameters[recipe.spec.name]) for recipe in made_of}
        stream = BytesIO()
        _Pickler(stream, replaced).dump(replace(built, draws=draw_all(made_of, built.seed)))
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
