"""BatchNorm running statistics for weights that were predicted rather than trained."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ghn.errors import DataError


def calibrate_(model: nn.Module, batches: Iterable[Any]) -> int:
    """Set the running statistics of every BatchNorm layer to their average over some batches.

    Predicted (or random) weights come with running statistics of mean 0 and variance 1, so in eval mode their
    BatchNorm layers normalize nothing. Modes, dropout state and gradients are as before afterwards; if it fails, the
    statistics are too, and so are those of layers that the batches don't reach.

    Args:
        model: Written in place; without BatchNorm layers nothing runs.
        batches: Inputs: a tensor, a tuple of positional, or a dict of keyword arguments each.

    Returns:
        Number of layers calibrated.

    Raises:
        DataError: If there are layers to calibrate but no batch.
    """
    layers = batchnorm_layers(model)
    if not layers:
        return 0
    momenta = [layer.momentum for layer in layers]
    before = [{name: buffer.clone() for name, buffer in layer.named_buffers()} for layer in layers]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for layer in layers:
        layer.train().reset_running_stats()
        layer.momentum = None  # cumulative average
    seen = 0
    try:
        with torch.no_grad():
            for batch in batches:
                _call(model, batch)
                seen += 1
        if not seen:
            raise DataError("calibrate_ needs at least one batch; the iterable was empty")
    except BaseException:
        _restore(layers, before)
        raise
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    unreached = [number for number, layer in enumerate(layers) if not layer.num_batches_tracked]
    _restore([layers[number] for number in unreached], [before[number] for number in unreached])
    return len(layers) - len(unreached)


def batchnorm_layers(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Layers that keep running statistics, which new weights leave uncalibrated."""
    return [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]


def _restore(layers: Sequence[nn.Module], before: Sequence[Mapping[str, Tensor]]) -> None:
    for layer, buffers in zip(layers, before, strict=True):
        layer.load_state_dict(buffers, strict=False)


def _call(model: nn.Module, batch: Any) -> None:
    if isinstance(batch, Tensor):
        model(batch)
    elif isinstance(batch, dict):
        model(**batch)
    else:
        model(*batch)
