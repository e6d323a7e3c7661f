"""The one-liner."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ghn.apply.init_ import init_ as apply_init_
from ghn.apply.load import load_hypernetwork
from ghn.apply.report import Report
from ghn.base import RuleSet
from ghn.decoder import MEMORY


def init_(
    model: nn.Module,
    checkpoint: str | Path | None = None,
    inputs: Any = None,
    seed: int = 0,
    *,
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
    net = load_hypernetwork(checkpoint)
    return apply_init_(
        net,
        model,
        inputs,
        seed,
        memory=memory,
        device=device,
        dtype=dtype,
        keep_deliberate=keep_deliberate,
        rules=rules,
    )
