"""The graphs that a run has traced, in its folder for the calls that go on with it."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import ghn
from ghn.environment import versions
from ghn.errors import OutputError, ShapeError
from ghn.files import write_whole
from ghn.graph.graph import ComputationGraph

GRAPHS = "graphs"
"""Folder of a run that holds them."""

_REMEDY = "free some space, and the same command goes on"


class GraphStore:
    """Graphs by the network that they are of; each is traced once for a run, however often that is interrupted.

    Args:
        folder: Where graphs are kept, compressed, a few kilobytes each.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def graph(self, key: str, trace: Callable[[], ComputationGraph]) -> ComputationGraph:
        """The graph of a key from the folder, or what ``trace`` makes; nothing is left in memory.

        Raises:
            OutputError: If the folder can't be written.
        """
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
