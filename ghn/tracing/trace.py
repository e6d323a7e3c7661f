"""Run a model on shapes alone and turn what happened into a computation graph."""

import contextvars
import itertools
import re
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from ghn.errors import TraceError
from ghn.graph.graph import ComputationGraph
from ghn.models import example_calls
from ghn.settings import paused_collection, untouched_randomness
from ghn.tracing.build import build_graph
from ghn.tracing.forms import to_meta
from ghn.tracing.inputs import call_arguments, convert_tensors, tensors_in
from ghn.tracing.merge import merge_records
from ghn.tracing.reads import HonestReads
from ghn.tracing.recorder import RawNode, Recorder
from ghn.tracing.registry import ParameterRegistry
from ghn.tracing.skeleton import has_hooks, make_skeleton, unwrap
from ghn.tracing.surroundings import Surroundings

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""

NUMBERS = {type(None), bool, int, float, torch.Size, torch.dtype, torch.device}
"""Types of arguments of models that make their own input, such as a generator that draws its noise."""

GRADIENTS = ("require grad", "requires_grad", "grad_fn", "autograd", "backward", "functorch", "TensorWrapper")
"""Words in the errors of a forward pass that takes gradients."""

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
    _check_in_memory(inner)
    calls = example_calls(inner) if inputs is None else [_checked_call(inputs)]
    with untouched_randomness(), paused_collection():
        record: list[RawNode] = []
        graph, notes, failure, hooks = None, [], None, False
        for (train, truth), (number, call) in itertools.product(PASSES, enumerate(calls)):
            try:
                nodes, registry, hooks = _run_with_hooks_if_needed(model, call, train, truth, hooks)
            except _FailedError as error:
                failure = failure or error
                continue
            steps = merge_records(record, nodes) if record else nodes
            candidate = build_graph(steps, registry, simplify)
            gains = _attached(candidate) - (_attached(graph) if graph else frozenset())
            if graph is None or gains:
                if train or truth or number:
                    notes.append(_note(train, truth, number > 0, gains, whole=graph is None))
                record, graph = steps, candidate
            if graph.coverage() == 1.0:
                break
    if graph is None:
        assert failure is not None
        raise _explain(type(inner).__name__, failure, with_inputs=inputs is not None) from failure.error
    return replace(graph, notes=tuple(notes))


def _checked_call(inputs: Any) -> Call:
    """Read example inputs; objects without a tensor in them would leave a graph without inputs, and no rule right."""
    args, kwargs = call_arguments(inputs)
    kinds = {type(value) for value in (*args, *kwargs.values())}
    if not kinds <= NUMBERS and not any(True for _ in tensors_in((args, kwargs))):
        raise TraceError(
            f"inputs={type(inputs).__name__} holds no tensor ({', '.join(sorted(kind.__name__ for kind in kinds))}); "
            "pass tensors as the model's forward takes them: one, a tuple of positional or a dict of keyword "
            "arguments, or objects that hold them"
        )
    return args, kwargs


def _check_in_memory(model: nn.Module) -> None:
    """Refuse weights that are only there while their module runs."""
    for name, module in model.named_modules():
        hook = getattr(module, "_hf_hook", None)
        if any(getattr(each, "offload", False) for each in getattr(hook, "hooks", [hook])):
            raise TraceError(
                f"{type(model).__name__}'s {name!r} is offloaded by accelerate, whose hooks fetch its weights only "
                "while it runs; initialize the model before dispatch_model, cpu_offload or device_map"
            )


def _attached(graph: ComputationGraph) -> frozenset[str]:
    return frozenset(spec.name for spec in graph.params if spec.node is not None)


def _note(train: bool, truth: bool, further: bool, gains: frozenset[str], whole: bool) -> str:
    way = "in train mode" if train else "where unknown conditions are true" if truth else "in eval mode"
    way += " on other inputs" if further else ""
    if whole:
        return f"traced {way}; it failed otherwise"
    first, *more = sorted(gains)
    return f"merged with what runs only {way}: {first!r}{f' and {len(more)} more parameters' if more else ''}"


class _FailedError(Exception):
    """A run that raised something."""

    def __init__(self, error: Exception, recorder: Recorder) -> None:
        super().__init__()
        self.error, self.last, self.operations = error, recorder.last, recorder.operations


Run = tuple[list[RawNode], ParameterRegistry, bool]
"""Record and parameters of a run, and whether the user's hooks ran."""


def _run_with_hooks_if_needed(model: nn.Module, call: Call, train: bool, truth: bool, hooks: bool) -> Run:
    """Run without the user's hooks, which may write to the user's objects, or with them if they turn out to matter.

    They do if a run fails without them, or uses fewer parameters: some compute weights (equalized learning rates).
    """
    run, failure = None, None
    if not hooks:
        try:
            run = _run(model, call, train, truth, hooks=False)
        except _FailedError as error:
            failure = error
    if run is not None and (_parameter_count(run) == len(run[1].names) or not has_hooks(model)):
        return run
    if failure is not None and not has_hooks(model):
        raise failure
    try:
        other = _run(model, call, train, truth, hooks=True)
    except _FailedError as error:
        if run is None:
            raise (failure or error) from None
        return run
    return other if run is None or _parameter_count(other) > _parameter_count(run) else run


def _parameter_count(run: Run) -> int:
    return len({node.parameter for node in run[0] if node.parameter is not None})


def _run(model: nn.Module, call: Call, train: bool, truth: bool, hooks: bool) -> Run:
    """Run a copy of the model once, and take back what that leaves anywhere else.

    Raises:
        _FailedError: If the model does.
    """
    inner = unwrap(model)
    surroundings = Surroundings(inner)
    skeleton = make_skeleton(inner, hooks)
    modules = list(skeleton.modules())
    registry = ParameterRegistry(model, skeleton)
    recorder = Recorder(registry, skeleton, truth)
    skeleton.train(train)
    try:
        contextvars.copy_context().run(_record, skeleton, recorder, call)
    except Exception as error:  # the target's own code may raise anything
        _clear_frames(error)
        raise _FailedError(error, recorder) from error
    finally:
        for module in modules:
            vars(module).clear()  # which breaks its cycles: what lives on then is held from outside
        surroundings.restore(recorder.release())
    return recorder.nodes, registry, hooks


def _record(skeleton: nn.Module, recorder: Recorder, call: Call) -> None:
    # Below autograd, operations that are composed of others stay whole, as in inference mode; but what the model keeps
    # is no inference tensor, which no later training could use.
    with torch.inference_mode(False), torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
        (args, kwargs), own, foreign = convert_tensors(call, _input_value)
        for tensor in own:
            recorder.add_input(tensor)
        for tensor in foreign:
            recorder.add_input(tensor, users=True)
        recorder.draws_are_inputs = not own
        with _quiet_forward(recorder), recorder, HonestReads(recorder):
            result = skeleton(*args, **kwargs)
        recorder.add_outputs(result)


def _clear_frames(error: BaseException | None) -> None:
    """Let go of what the frames of an error refer to; where it was raised stays known."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _input_value(tensor: Tensor) -> Tensor:
    """Integers (tokens, positions, masks) keep their values; of everything else only the shape counts."""
    if tensor.is_meta:  # what the run was given is taken back after it, so it is never the caller's own
        return tensor.detach().clone()
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
        return to_meta(tensor)
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


def _explain(model: str, failure: _FailedError, with_inputs: bool) -> TraceError:
    error, (module, operation) = failure.error, failure.last
    if isinstance(error, TraceError):
        return TraceError(f"{model} could not be traced: {error}")
    where = f"in module {module!r}" if module else "in the root module"
    message = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if not with_inputs or (isinstance(error, TypeError) and not failure.operations):
        advice = (
            "Pass inputs=… that its forward accepts (a tensor, a tuple of positional or a dict of keyword "
            "arguments)"
        )
    elif any(word in message for word in GRADIENTS):
        advice = "Its forward takes gradients itself, which a run on shapes alone can't follow"
    elif "NestedTensor" in message:
        advice = "Nested tensors of the layout torch.strided have no shapes without values: pass layout=torch.jagged"
    elif re.search(r"\bmeta\b", message):
        advice = (
            "Its forward needs values of a tensor, or asks where it is: while tracing, tensors are on 'meta'"
        )
    else:
        advice = (
            "Check that the model itself runs on these inputs; if it does, its forward does what a run on shapes alone "
            "can't follow"
        )
    return TraceError(
        f"{model} could not be traced: {type(error).__name__} {where}, at or after operation {operation or 'none'!r}: "
        f"{message}. {advice}"
    )
