"""The one-liner, and the hypernetworks that it has loaded."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ghn.apply.knowledge import Examples
from ghn.apply.report import Report
from ghn.base import RuleSet
from ghn.checkpoints import CONFIG, WEIGHTS, resolve_checkpoint
from ghn.decoder import MEMORY

if TYPE_CHECKING:
    from ghn.hypernetwork import GHN


def init_(
    model: nn.Module,
    checkpoint: str | Path | None = None,
    inputs: Any = None,
    seed: int = 0,
    *,
    examples: Examples | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    memory: int = MEMORY,
    keep_deliberate: bool = True,
    rules: RuleSet | None = None,
) -> Report:
    """Initialize a model in place with weights predicted by a checkpoint.

    Args:
        model: Any module.
        checkpoint: Folder or hub id; None is the checkpoint that ships with ghn. Loaded once, until its files change.
        inputs: Example inputs, needed for models of no known zoo.
        seed: Same seed, same weights.
        examples: A few hundred labelled inputs of your data, ``(images, labels)``: they decide whether the model
            gets all that was learned or, for other data, what the first layers learned.
        device: Where the model goes; None leaves it, or puts a meta model on the CPU.
        dtype: Of its parameters; None is what it has.
        memory: Bytes to take beside the model, roughly.
        keep_deliberate: Whether what its owner initialized deliberately (zeros that end a residual branch, a chosen
            scale …) keeps its values; the report names it.
        rules: How parameters start, such as ``ghn.base.default_rules().without("batch_norm_bias")``; None is the
            default. The report says which rule made each parameter.

    Returns:
        Fate of every parameter; see ``GHN.init_`` for it and for the errors.
    """
    return load_hypernetwork(checkpoint).init_(
        model,
        inputs,
        seed,
        examples=examples,
        device=device,
        dtype=dtype,
        memory=memory,
        keep_deliberate=keep_deliberate,
        rules=rules,
    )


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
