"""BatchNorm running statistics for weights that were predicted rather than trained."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ghn.errors import DataError, one_line
from ghn.settings import modes_restored
from ghn.tracing.inputs import call_arguments


def calibrate_(model: nn.Module, batches: Iterable[Any]) -> int:
    """Set the running statistics of every BatchNorm layer to their average over some batches.

    Predicted (or random) weights come with running statistics of mean 0 and variance 1, so in eval mode their
    BatchNorm layers normalize nothing. Modes, dropout state and gradients are as before afterwards; if it fails, the
    statistics are too, and so are those of layers that the batches don't reach.

    Args:
        model: Written in place; without BatchNorm layers nothing runs.
        batches: Inputs, each of them read as ``ghn.trace`` reads them: a tensor, a tuple of positional or a mapping of
            keyword arguments, or any other object that is one argument.

    Returns:
        Number of layers calibrated.

    Raises:
        DataError: If there are layers to calibrate but no batch, or the model fails on one; says which.
    """
    layers = batchnorm_layers(model)
    if not layers:
        return 0
    _check(model, batches)
    momenta = [layer.momentum for layer in layers]
    before = [{name: buffer.clone() for name, buffer in layer.named_buffers()} for layer in layers]
    count = 0
    try:
        with torch.no_grad(), modes_restored(model):
            model.eval()
            for layer in layers:
                layer.train().reset_running_stats()
                layer.momentum = None  # which averages over batches, instead of weighing the last ones most
            for batch in batches:
                _call(model, batch, count)
                count += 1
        if not count:
            raise DataError("calibrate_ needs at least one batch; the iterable was empty")
        _check_finite(model)
    except BaseException:
        _restore(layers, before)
        raise
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    idle = [number for number, layer in enumerate(layers) if not layer.num_batches_tracked]
    _restore([layers[number] for number in idle], [before[number] for number in idle])
    return len(layers) - len(idle)


def batchnorm_layers(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Layers that keep running statistics, which new weights leave uncalibrated."""
    return [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]


def _restore(layers: Sequence[nn.Module], before: Sequence[Mapping[str, Tensor]]) -> None:
    for layer, buffers in zip(layers, before, strict=True):
        layer.load_state_dict(buffers, strict=False)


def _check_finite(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if module in batchnorm_layers(module) and not all(
            torch.isfinite(buffer).all() for buffer in (module.running_mean, module.running_var)
        ):
            raise DataError(
                f"the statistics of {type(model).__name__}'s {name!r} are not finite on these batches; pass batches "
                "that are not empty, of finite numbers, and check the weights before it"
            )


def _check(model: nn.Module, batches: Any) -> None:
    """Refuse what can't be calibrated, and one batch in place of several."""
    name = next((name for name, tensor in model.state_dict().items() if tensor.is_meta), None)
    if name is not None:
        raise DataError(
            f"{type(model).__name__}'s {name!r} is on the meta device and has no values; ghn.init_ gives it some: "
            "calibrate after that"
        )
    one = isinstance(batches, Tensor | Mapping | str) or hasattr(batches, "to_dict")  # torch-geometric's Data
    if one or not isinstance(batches, Iterable):
        raise DataError(
            f"batches is one {type(batches).__name__}; expected an iterable of batches: pass [batch] for a single one"
        )


def _call(model: nn.Module, batch: Any, number: int) -> None:
    args, kwargs = call_arguments(batch)
    try:
        model(*args, **kwargs)
    except Exception as error:  # the model's own code may raise anything
        arguments = ", ".join(
            [*map(_summary, args), *(f"{key}={_summary(value)}" for key, value in kwargs.items())]
        )
        raise DataError(
            f"{type(model).__name__} failed on batch {number}, called with ({arguments}): {type(error).__name__}: "
            f"{one_line(error)}. {_advice(error, args, kwargs)}"
        ) from error


def _summary(value: Any) -> str:
    return f"tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _advice(error: Exception, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    if isinstance(error, TypeError) and len(kwargs) > 1:
        return "Every key is an argument of forward: leave out those that it doesn't take, such as labels"
    if isinstance(error, TypeError) and len(args) > 1:
        return (
            "A tuple or list is several arguments: of a loader's (images, labels) pass (images for images, _ in "
            "loader)"
        )
    if "more than 1 value per channel" in str(error):
        return "Statistics need more than one sample: leave such a batch out, as DataLoader(…, drop_last=True) does"
    return (
        "A batch is a tensor, a tuple of positional or a mapping of keyword arguments of the model's forward"
    )
