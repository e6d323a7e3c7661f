"""The one-liner."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from ghn.apply.init_ import init_ as apply_init_
from ghn.apply.report import Report
from ghn.hypernetwork import GHN


def init_(
    model: nn.Module, checkpoint: str | Path | None = None, inputs: Any = None, seed: int = 0
) -> Report:
    """Initialize a model in place with weights predicted by a checkpoint.

    Args:
        model: Any module.
        checkpoint: Folder or hub id; None is the checkpoint that ships with ghn. Loaded once per process.
        inputs: Example inputs, needed for models of no known zoo.
        seed: Same seed, same weights.

    Returns:
        Fate of every parameter; see ``GHN.init_`` for it and for the errors.
    """
    return apply_init_(_load(None if checkpoint is None else str(checkpoint)), model, inputs, seed)


@lru_cache(maxsize=2)
def _load(checkpoint: str | None) -> GHN:
    return GHN.from_pretrained(checkpoint)
