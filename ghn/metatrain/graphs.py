"""The graphs that a run has traced: in memory, and in its folder for the calls that go on with it."""

import gzip
import hashlib
import json
import zlib
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from torch_geometric.data import Data

import ghn
from ghn.decoder import DecoderConfig, Recipe, recipes
from ghn.environment import versions
from ghn.errors import OutputError, ShapeError
from ghn.files import write_whole
from ghn.graph.graph import ComputationGraph

GRAPHS = "graphs"
"""Folder of a run that holds them."""

GRAPHS_KEPT = 4096
"""Traced graphs with their features that a process keeps in memory; up to 1.6 MB each at scale 'full'."""

RECIPES_KEPT = 256
"""Networks of which a worker, which needs no more, keeps what their parameters are made of."""

_REMEDY = "free some space, and the same command goes on"

Kept = TypeVar("Kept")
Known = tuple[ComputationGraph, Data, list[Recipe]]
"""A graph, its features, and what its parameters are made of."""


class Graphs:
    """Graphs by the network that they are of; each is traced once for a run, however often that is interrupted.

    Args:
        decoder: Of the hypernetwork that predicts them.
        folder: Where graphs are kept, compressed, a few kilobytes each; None keeps them in memory alone.
    """

    def __init__(self, decoder: DecoderConfig, folder: Path | None = None) -> None:
        self._decoder = decoder
        self._folder = folder
        self._kept: OrderedDict[str, Known] = OrderedDict()
        self._recipes: OrderedDict[str, list[Recipe]] = OrderedDict()

    def get(self, key: str, trace: Callable[[], ComputationGraph]) -> Known:
        """The graph of a key, which ``trace`` makes if no call before has.

        Raises:
            OutputError: If the folder can't be written.
        """

        def known() -> Known:
            graph = self.graph(key, trace)
            return graph, graph.to_pyg(), recipes(graph, self._decoder)

        return _recent(self._kept, GRAPHS_KEPT, key, known)

    def recipes(self, key: str, trace: Callable[[], ComputationGraph]) -> list[Recipe]:
        """What the graph's parameters are made of; the graph itself is left in the folder, and not in memory.

        Raises:
            OutputError: If the folder can't be written.
        """
        return _recent(
            self._recipes, RECIPES_KEPT, key, lambda: recipes(self.graph(key, trace), self._decoder)
        )

    def graph(self, key: str, trace: Callable[[], ComputationGraph]) -> ComputationGraph:
        """The graph of a key from the folder, or what ``trace`` makes; nothing is left in memory.

        Raises:
            OutputError: If the folder can't be written.
        """
        if self._folder is None:
            return trace()
        name = hashlib.blake2b(f"{_origin()} {key}".encode(), digest_size=16).hexdigest()
        path = self._folder / f"{name}.json.gz"
        graph = _read(path)
        if graph is None:
            graph = trace()
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{self._folder} can't be made ({error.strerror}); {_REMEDY}") from error
            write_whole(path, gzip.compress(json.dumps(graph.to_dict()).encode(), mtime=0), _REMEDY)
        return graph

    def made_of(self, graph: ComputationGraph) -> list[Recipe]:
        """What a graph's parameters are made of."""
        return recipes(graph, self._decoder)


def _recent(table: OrderedDict[str, Kept], most: int, key: str, make: Callable[[], Kept]) -> Kept:
    """What a table holds under a key, or something new; of more than ``most`` the one not asked for longest goes."""
    if key not in table:
        table[key] = make()
        if len(table) > most:
            table.popitem(last=False)
    table.move_to_end(key)
    return table[key]


def _read(path: Path) -> ComputationGraph | None:
    """None if the file isn't there, or is damaged: then its graph is traced again."""
    try:
        return ComputationGraph.from_dict(json.loads(gzip.decompress(path.read_bytes())))
    except (OSError, EOFError, zlib.error, ValueError, ShapeError):
        return None


@lru_cache(maxsize=1)
def _origin() -> str:
    """Digest of what a network's graph depends on beside the network: this package's code and the libraries."""
    digest = hashlib.blake2b(json.dumps(versions()).encode(), digest_size=16)
    for source in sorted(Path(ghn.__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()
