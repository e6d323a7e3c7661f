"""A hypernetwork, loaded once per process."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ghn.checkpoints import CONFIG, WEIGHTS, resolve_checkpoint

if TYPE_CHECKING:
    from ghn.hypernetwork import GHN


def load_hypernetwork(checkpoint: str | Path | None = None) -> "GHN":
    """Load a checkpoint, or take it from the last call if its files are still the same.

    Args:
        checkpoint: As ``GHN.from_pretrained`` takes it, and so are the errors.
    """
    source = resolve_checkpoint(checkpoint)
    files = (Path(source) / name for name in (WEIGHTS, CONFIG))
    stats = [path.stat() for path in files if path.is_file()]
    return _load(source, tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats))


@lru_cache(maxsize=2)
def _load(source: str, files: tuple[tuple[int, int, int], ...]) -> "GHN":
    from ghn.hypernetwork import GHN  # imports torch_geometric, which some arms of a comparison do without

    return GHN.from_pretrained(source)
