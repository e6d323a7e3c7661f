"""Trace a model, predict its parameters, and write them in place, slice by slice."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ghn.apply.deliberate import deliberate
from ghn.apply.knowledge import Examples, beats_chance, check_examples
from ghn.apply.local_part import LocalPart, Scratch
from ghn.apply.materialize import check_target, materialized, move_
from ghn.apply.predictor import Predictor
from ghn.apply.report import Report, why_kept
from ghn.base import RuleSet
from ghn.base.blocks import Grid
from ghn.base.predicted import predicted_names
from ghn.decoder import MEMORY, Learned, ParamSlice, Prediction
from ghn.errors import ConfigError, PredictionError
from ghn.graph.graph import ComputationGraph, ParamSpec
from ghn.settings import own_settings, paused_collection
from ghn.tensors import local_part
from ghn.tracing.cache import trace_once
from ghn.tracing.skeleton import unwrap


def predict(
    net: Predictor,
    model: nn.Module,
    inputs: Any = None,
    seed: int = 0,
    learned: Learned = True,
    keep_deliberate: bool = True,
    rules: RuleSet | None = None,
) -> dict[str, Tensor]:
    """Predict a model's parameters without touching it; see ``GHN.predict``."""
    check_numbers(seed)
    inner = unwrap(model)  # a parameter's own name decides its values, not that of a wrapper
    graph = _trace(net, inner, inputs, keep_deliberate, rules)
    targets = dict(inner.named_parameters())
    names = {id(target): name for name, target in model.named_parameters()}
    return {
        names[id(targets[name])]: values.to(
            device=targets[name].device if targets[name].device.type != "meta" else None,
            dtype=targets[name].dtype,
        )
        for name, values in net.predict_graph(graph, seed, learned, rules).params.items()
    }


@torch.no_grad()
def init_(
    net: Predictor,
    model: nn.Module,
    inputs: Any = None,
    seed: int = 0,
    learned: Learned = True,
    examples: Examples | None = None,
    memory: int = MEMORY,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    keep_deliberate: bool = True,
    rules: RuleSet | None = None,
) -> Report:
    """Write predicted parameters into a model; see ``GHN.init_``."""
    target = check_target(device, dtype)
    check_numbers(seed, memory)
    model = unwrap(model)
    if examples is not None:
        check_examples(examples)
    prediction = checked_prediction(net, model, inputs, seed, learned, keep_deliberate, rules)
    # What was learned on other data fades out with depth, unless all of it is found to know something of the examples.
    trial = examples if learned is True and prediction.fades else None
    whole = prediction if trial is None else prediction.like(seed, "all")
    names = predicted_names(prediction.graph)
    with (
        paused_collection(),
        _explain_failure(model),
        materialized(model, names, target, dtype, seed),
    ):
        move_(model, target, dtype)
        own = dict(model.named_parameters())
        parts = {name: LocalPart.of(name, own[name]) for name in names}

        def rows(spec: ParamSpec, grid: Grid) -> tuple[int, int]:
            return parts[spec.name].rows(grid)

        _write(whole.stream(memory, rows), parts, prediction.device)
        if trial is not None and not beats_chance(model, trial):
            whole = prediction
            _write(whole.stream(memory, rows), parts, prediction.device)
    return Report.of(whole)


MIN_MEMORY = 2**22
"""Bytes below which no option helps: the largest matrix's factors alone take more."""

SEEDS = range(-(2**63), 2**64)
"""Seeds that PyTorch's generators take."""


def check_numbers(seed: int, memory: int = MIN_MEMORY) -> None:
    """Check what every prediction takes.

    Raises:
        ConfigError: If the seed or the memory is no whole number, or out of range.
    """
    if type(seed) is not int or seed not in SEEDS:
        raise ConfigError(f"seed={seed!r} is no seed; pass a whole number (int) of at most 64 bits")
    if type(memory) is not int:
        raise ConfigError(f"memory={memory!r} is no number of bytes; pass a whole number (int) such as 2**28")
    if memory < MIN_MEMORY:
        raise ConfigError(f"memory={memory} bytes are too few to decode in; give at least {MIN_MEMORY}")


@contextmanager
def _explain_failure(model: nn.Module) -> Iterator[None]:
    """Say after a failure that a model with values is half written; one on the meta device is put back."""
    real = any(not parameter.is_meta for parameter in model.parameters())
    state = (
        "some of its parameters may be predicted by now and others not; construct it again, or on the meta device, "
        "where a failure changes nothing"
    )
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if real:
            interrupt.add_note(f"Writing {type(model).__name__} was interrupted: {state}.")
        raise
    except (MemoryError, RuntimeError) as error:  # out of memory, a device that is gone
        if not real:
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise PredictionError(f"writing {type(model).__name__} failed midway ({reason}): {state}") from error


def _trace(
    net: Predictor, model: nn.Module, inputs: Any, keep_deliberate: bool, rules: RuleSet | None
) -> ComputationGraph:
    """The graph of a model, where parameters that their owner initialized deliberately are kept."""
    graph = trace_once(model, inputs)
    return graph.keeping(deliberate(model, graph, net.rules(rules))) if keep_deliberate else graph


@torch.no_grad()
def checked_prediction(
    net: Predictor,
    model: nn.Module,
    inputs: Any = None,
    seed: int = 0,
    learned: Learned = True,
    keep_deliberate: bool = True,
    rules: RuleSet | None = None,
) -> Prediction:
    """What is to be written into a model, checked as far as it can be before; arguments are those of ``init_``.

    Raises:
        PredictionError: If there is nothing to predict, a parameter can't be written, a rule fails, or the hypernetwork
            is damaged or can't predict.
    """
    net.check_weights()
    _check_writable(type(model).__name__, dict(model.named_parameters()))
    graph = _trace(net, model, inputs, keep_deliberate, rules)
    if not any(spec.node is not None and spec.dtype.is_floating_point for spec in graph.params):
        raise PredictionError(f"{type(model).__name__} has no parameter to predict: {_why_nothing(graph)}")
    return net.predict_graph(graph, seed, learned, rules)


@own_settings()
def _write(slices: Iterator[ParamSlice], parts: Mapping[str, LocalPart], device: torch.device) -> None:
    scratch = Scratch(device)
    for name, consecutive in groupby(slices, lambda entry: entry.spec.name):
        if parts[name].whole:
            parts[name].write(list(consecutive), scratch)
        else:
            for entry in consecutive:
                parts[name].write([entry], scratch)


def _check_writable(model: str, targets: dict[str, nn.Parameter]) -> None:
    """Refuse what would fail halfway, before anything is written."""
    for name, tensor in targets.items():
        if is_lazy(tensor):
            raise PredictionError(
                f"{model}'s {name!r} is lazy, and has no shape before the first call; run the model once on real inputs"
            )
        if not tensor.is_meta and tensor.is_inference() and not torch.is_inference_mode_enabled():
            raise PredictionError(
                f"{model}'s {name!r} was made under torch.inference_mode() and can't be written; construct the model "
                "outside of it"
            )
        if tensor.layout != torch.strided:  # it is kept
            continue
        if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
            raise PredictionError(
                f"{model}'s {name!r} is an expanded view whose rows share memory; make it a tensor of its own with "
                ".clone()"
            )
        if reason := _unreachable(tensor):
            raise PredictionError(
                f"{model}'s {name!r} can't be written ({reason}): its memory was freed, as by sharding wrappers, "
                "or its device is gone; initialize the model before it is wrapped, or construct it again"
            )


def _unreachable(tensor: Tensor) -> str:
    """Why the memory of a tensor can't be read, on its device; empty if it can."""
    local = local_part(tensor)
    if local.is_meta or not local.numel():
        return ""
    try:
        local.detach()[(-1,) * local.dim()].cpu()
    except RuntimeError as error:
        return str(error).splitlines()[0].rstrip(".")
    return ""


def _why_nothing(graph: ComputationGraph) -> str:
    if not graph.params:
        return "it has none at all"
    return f"{graph.params[0].name!r}, for one, is kept: {why_kept(graph.params[0])}"
