"""Traces remembered by everything they depend on: an architecture is traced once per process."""

import functools
import hashlib
from collections import OrderedDict
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from ghn.graph.graph import ComputationGraph
from ghn.tensors import has_storage, is_distributed
from ghn.tracing.code import Same, code_of
from ghn.tracing.skeleton import PRIVATE, unwrap
from ghn.tracing.trace import paused_collection, trace
from ghn.tracing.values import MAX_KNOWN_NUMEL

MAX_GRAPHS = 16
"""Traces that are remembered; the one not asked for longest goes first."""

ATOMS = (bool, int, float, complex, str, bytes, range, Enum, type(None))
TORCH_ATOMS = (torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format)

BOOKKEEPING = frozenset({"_is_hf_initialized"})
"""What transformers notes on modules and tensors that have values; no forward pass reads it."""

_graphs: OrderedDict[Any, ComputationGraph] = OrderedDict()


class _UnknownError(Exception):
    """Holds something that a run could depend on and that can't be compared."""


def trace_once(model: nn.Module, inputs: Any = None) -> ComputationGraph:
    """``ghn.trace``, or the graph it returned before for an equal model on equal inputs.

    Two models are equal if their modules have the same names, classes, order, attributes and hooks (compared by value,
    configurations and other plain objects included), their parameters the same shapes, types, strides and ties, their
    buffers the same values (large ones: the same form), and if the code is the same: the methods of all their classes
    and whatever global functions, flags and tables these name, directly or through other functions outside of torch.
    A model that holds anything else (open files, generators, closures over tensors) is traced every time. Not seen are
    changes a forward pass reads from outside of Python: environment variables, files, extensions' own state.

    Arguments, result and errors are those of ``trace``.
    """
    try:
        with paused_collection():
            key = fingerprint(model, inputs)
    except _UnknownError:
        return trace(model, inputs)
    if key in _graphs:
        _graphs.move_to_end(key)
        return _graphs[key]
    graph = _graphs[key] = trace(model, inputs)
    if len(_graphs) > MAX_GRAPHS:
        _graphs.popitem(last=False)
    return graph


def forget() -> None:
    """Drop all remembered traces."""
    _graphs.clear()


def fingerprint(model: nn.Module, inputs: Any) -> Any:
    """What ``trace_once`` compares; hashable, and equal only for models that give the same graph."""
    inner = unwrap(model)
    tree = list(inner.named_modules(remove_duplicate=False))
    view = _View([module for _, module in tree])
    names = tuple(model.named_parameters(remove_duplicate=False)) if inner is not model else ()
    outer = tuple((name, view.value(tensor)) for name, tensor in names)
    modules = tuple(view.module(name, module) for name, module in tree)
    classes = frozenset(view.classes)
    state = (torch.get_default_dtype(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda"))
    key = (code_of(classes), state, outer, modules, _inputs(view, inputs))
    hash(key)
    return key


def _inputs(view: "_View", inputs: Any) -> Any:
    """Floating-point inputs count by their form alone, as in a trace; None are found from the model."""
    if isinstance(inputs, Tensor):
        return view.form(inputs) if inputs.is_floating_point() else view.tensor(inputs)
    if isinstance(inputs, dict):
        return tuple((name, _inputs(view, value)) for name, value in inputs.items())
    if isinstance(inputs, list | tuple):
        return tuple(_inputs(view, value) for value in inputs)
    return view.value(inputs)


class _View:
    """One model, seen as values that can be compared with those of another."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self.classes: set[Any] = set()
        self._numbers: dict[int, int] = {}
        self._storages: dict[int, int] = {}
        self._alive: list[Any] = []
        for module in modules:
            self._numbers.setdefault(id(module), len(self._numbers))
            self.classes.add(type(module))

    def module(self, name: str, module: nn.Module) -> Any:
        """Name, class and everything a module holds; of one that came before, its number."""
        attributes = vars(module)
        state = [
            (key, self.value(value))
            for key, value in attributes.items()
            if (key not in PRIVATE or value) and key not in BOOKKEEPING
        ]
        return (name, self._numbers[id(module)], Same(type(module)), tuple(state))

    def value(self, value: Any) -> Any:
        """Something hashable that is equal for equal values only."""
        if isinstance(value, (ATOMS, TORCH_ATOMS)):
            return (type(value), value)
        if id(value) in self._numbers:
            return ("seen", self._numbers[id(value)])
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, type):
            self.classes.add(value)
            return Same(value)
        if isinstance(value, FunctionType | BuiltinFunctionType):
            self.classes.add(value)
            return Same(value)
        if isinstance(value, nn.Module):  # outside of the module tree
            self._number(value)
            self.classes.add(type(value))
            return self.module("", value)
        self._number(value)
        return self._compound(value)

    def _number(self, value: Any) -> None:
        self._numbers[id(value)] = len(self._numbers)
        self._alive.append(value)  # so that no other object gets its id

    def _compound(self, value: Any) -> Any:
        kind = type(value)
        rest = self._attributes(value) if hasattr(value, "__dict__") else ()
        if isinstance(value, dict):
            return (kind, rest, *((self.value(key), self.value(entry)) for key, entry in value.items()))
        if isinstance(value, list | tuple):
            return (kind, rest, *map(self.value, value))
        if isinstance(value, set | frozenset) and all(isinstance(entry, ATOMS) for entry in value):
            return (kind, frozenset(map(self.value, value)))
        if isinstance(value, functools.partial):
            return (kind, self.value(value.func), self.value(value.args), self.value(value.keywords))
        if isinstance(value, MethodType):
            return (kind, self.value(value.__func__), self.value(value.__self__))
        plain = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
        if plain and rest and not hasattr(kind, "__slots__"):
            return rest
        raise _UnknownError

    def _attributes(self, value: Any) -> Any:
        """Class and attributes of a plain object."""
        self.classes.add(type(value))
        return (Same(type(value)), self.value(vars(value)))

    def tensor(self, tensor: Tensor) -> Any:
        """Form, ties and, of what a trace knows the values of, those."""
        self._number(tensor)
        form = self.form(tensor)
        if isinstance(tensor, nn.Parameter) or tensor.is_meta or tensor.numel() > MAX_KNOWN_NUMEL:
            return form
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return (*form, hashlib.blake2b(values, digest_size=16).digest())

    def form(self, tensor: Tensor) -> Any:
        """Everything but the values."""
        if is_distributed(tensor):  # a trace sees the whole
            return (Same(type(tensor)), tensor.shape, tensor.dtype, tensor.requires_grad)
        if (
            type(tensor) not in (Tensor, nn.Parameter)
            or not has_storage(tensor)
            or tensor.grad_fn is not None
        ):
            raise _UnknownError
        storage = self._storages.setdefault(tensor.untyped_storage()._cdata, len(self._storages))
        place = (storage, tensor.storage_offset(), tensor.stride())
        unknown = tensor.is_meta or isinstance(tensor, nn.Parameter)  # a trace knows no parameter's values
        attributes = {name: value for name, value in vars(tensor).items() if name not in BOOKKEEPING}
        facts = (tensor.dtype, tensor.requires_grad, unknown, self.value(attributes))
        return (type(tensor), tensor.shape, place, facts)
