"""Run a model on shapes alone and turn what happened into a computation graph."""

import gc
import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._pytree import tree_map_only

from ghn.errors import TraceError
from ghn.graph.graph import ComputationGraph
from ghn.graph.merge import merge_records
from ghn.graph.recorder import HonestReads, RawNode, Recorder, tensors_in
from ghn.graph.simplify import build_graph
from ghn.graph.skeleton import ParameterRegistry, make_skeleton, untouched_randomness, unwrap
from ghn.models import example_calls

PASSES = ((False, False), (True, False), (False, True))
"""(train mode, answer to unknown booleans) of each run; a later one runs only while parameters are missing, and what it
executes besides is merged into the record."""


def trace(model: nn.Module, inputs: Any = None, simplify: bool = True) -> ComputationGraph:
    """Trace a model into a graph of the operations it executes, without computing or copying weights.

    The model runs on meta tensors under ``torch.inference_mode()``; constants and integer inputs keep their values, so
    control flow that depends on them is followed. Weights, buffers, mode, hooks, gradients and random state stay as
    they are. While a run leaves parameters unused, other ways are tried and merged in: train mode (auxiliary heads),
    conditions on unknown values taken for true, and the further example calls that a few zoo models have.

    Args:
        model: Any module, on any device; data-parallel and compiled wrappers are looked through.
        inputs: A tensor, a tuple of positional arguments, or a dict of keyword arguments; None finds them for models
            of timm, torchvision and Hugging Face.
        simplify: False keeps every recorded operation, shape operations too.

    Returns:
        The graph, with one ``ParamSpec`` per distinct parameter tensor; those that no operation used say why.

    Raises:
        TraceError: If the model can't run on the inputs; names the module and operation.
        ModelError: If ``inputs`` is None and the model is of no known zoo.
    """
    inner = unwrap(model)
    calls = example_calls(inner) if inputs is None else [_arguments(inputs)]
    with untouched_randomness(), paused_collection():
        skeleton = make_skeleton(inner)
        registry = ParameterRegistry(model, skeleton)
        record: list[RawNode] = []
        graph, notes, failure = None, [], None
        for (train, truth), (number, (args, kwargs)) in itertools.product(PASSES, enumerate(calls)):
            recorder = Recorder(registry, skeleton, truth)
            try:
                _run(skeleton, recorder, args, kwargs, train)
            except Exception as error:  # the target's own code may raise anything
                failure = failure or (error, recorder.last)
                continue
            merged = merge_records(record, recorder.nodes) if record else recorder.nodes
            candidate = build_graph(merged, registry, simplify)
            gained = _attached(candidate) - (_attached(graph) if graph else frozenset())
            if graph is None or gained:
                if train or truth or number:
                    notes.append(_note(train, truth, number > 0, gained, whole=graph is None))
                record, graph = merged, candidate
            if graph.coverage() == 1.0:
                break
    if graph is None:
        assert failure is not None
        raise _explain(type(inner).__name__, *failure) from failure[0]
    return replace(graph, notes=tuple(notes))


@contextmanager
def paused_collection() -> Iterator[None]:
    """A record is many small objects and hardly any garbage: searching it over and over takes a sixth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _attached(graph: ComputationGraph) -> frozenset[str]:
    return frozenset(spec.name for spec in graph.params if spec.node is not None)


def _note(train: bool, truth: bool, further: bool, gained: frozenset[str], whole: bool) -> str:
    way = "in train mode" if train else "where unknown conditions are true" if truth else "in eval mode"
    way += " on other inputs" if further else ""
    if whole:
        return f"traced {way}; it failed otherwise"
    first, *more = sorted(gained)
    return f"merged with what runs only {way}: {first!r}{f' and {len(more)} more parameters' if more else ''}"


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, tuple | list) else ((inputs,), {})


def _run(skeleton: nn.Module, recorder: Recorder, args: Any, kwargs: dict[str, Any], train: bool) -> None:
    skeleton.train(train)
    with torch.inference_mode():
        args, kwargs = tree_map_only(Tensor, _input_value, (args, kwargs))
        for tensor in tensors_in((args, kwargs)):
            recorder.add_input(tensor)
        with _quiet_forward(recorder), recorder, HonestReads():
            result = skeleton(*args, **kwargs)
        recorder.add_outputs(result)


def _input_value(tensor: Tensor) -> Tensor:
    """Integers (tokens, positions, masks) keep their values; of everything else only the shape counts."""
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.device.type == "meta":
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return tensor.detach().cpu().clone()


@contextmanager
def _quiet_forward(recorder: Recorder) -> Iterator[None]:
    """Follow the module stack, and keep fused or compiled paths from hiding operations."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        enter = register_module_forward_pre_hook(recorder.enter_module)
        leave = register_module_forward_hook(recorder.leave_module, always_call=True)
        stack.callback(enter.remove)
        stack.callback(leave.remove)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        validates = torch.distributions.Distribution._validate_args
        stack.callback(torch.distributions.Distribution.set_default_validate_args, validates)
        torch.distributions.Distribution.set_default_validate_args(False)
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _explain(model: str, error: Exception, last: tuple[str, str]) -> TraceError:
    module, operation = last
    where = f"in module {module!r}" if module else "in the root module"
    message = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return TraceError(
        f"{model} could not be traced: {type(error).__name__} {where}, at or after operation {operation or 'none'!r}: "
        f"{message}. Pass inputs=… that its forward accepts (a tensor, a tuple of positional or a dict of keyword "
        "arguments)"
    )
