"""Trace a model, predict its parameters, and write them in place."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ghn.apply.report import Report
from ghn.errors import PredictionError
from ghn.graph.cache import trace_once
from ghn.graph.graph import ComputationGraph
from ghn.hypernetwork import GHN


def predict(
    net: GHN, model: nn.Module, inputs: Any = None, seed: int = 0, learned: bool = True
) -> dict[str, Tensor]:
    """Predict a model's parameters without touching it; see ``GHN.predict``."""
    return _predict(net, model, trace_once(model, inputs), seed, learned)


def init_(net: GHN, model: nn.Module, inputs: Any = None, seed: int = 0, learned: bool = True) -> Report:
    """Write predicted parameters into a model; see ``GHN.init_``."""
    graph = trace_once(model, inputs)
    with torch.no_grad():
        predicted = _predict(net, model, graph, seed, learned)
        check_finite(predicted)
        if not predicted:
            raise PredictionError(
                f"{type(model).__name__} has no parameter to predict: {_why_nothing(graph)}"
            )
        targets = dict(model.named_parameters())
        _check_writable(type(model).__name__, targets)
        for name, values in predicted.items():
            targets[name].copy_(values)
    return Report.of(graph, frozenset(predicted))


def check_finite(parameters: Mapping[str, Tensor]) -> None:
    """Refuse predictions that hold NaN or infinity.

    Raises:
        PredictionError: Names the first such parameter and what usually causes it.
    """
    for name, values in parameters.items():
        if not torch.isfinite(values).all():
            raise PredictionError(
                f"the prediction for {name!r} of shape {tuple(values.shape)} is not finite; the hypernetwork's weights "
                "are damaged or its training diverged: load another checkpoint"
            )


def _predict(
    net: GHN, model: nn.Module, graph: ComputationGraph, seed: int, learned: bool
) -> dict[str, Tensor]:
    targets = dict(model.named_parameters())
    return {
        name: values.to(
            device=targets[name].device if targets[name].device.type != "meta" else None,
            dtype=targets[name].dtype,
        )
        for name, values in net(graph, seed, learned).items()
    }


def _check_writable(model: str, targets: Mapping[str, Tensor]) -> None:
    """Refuse what would fail halfway, before anything is written."""
    for name, tensor in targets.items():
        if tensor.is_meta:
            raise PredictionError(
                f"{model}'s {name!r} is on the meta device, which holds no values; call "
                "model.to_empty(device='cpu') first, or use predict"
            )
        if tensor.is_inference() and not torch.is_inference_mode_enabled():
            raise PredictionError(
                f"{model}'s {name!r} was made under torch.inference_mode() and can't be written; construct the model "
                "outside of it"
            )
        if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
            raise PredictionError(
                f"{model}'s {name!r} is an expanded view whose rows share memory; make it a tensor of its own with "
                ".clone()"
            )


def _why_nothing(graph: ComputationGraph) -> str:
    if not graph.params:
        return "it has none at all"
    return f"{graph.params[0].name!r}, for one, is not used ({graph.params[0].reason})"
