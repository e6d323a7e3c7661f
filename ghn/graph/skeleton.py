"""A stand-in that runs like the model and shares its tensors, so that tracing copies no weight and changes nothing."""

import copy
import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ghn.errors import TraceError

UNCOPIABLE = (TypeError, RuntimeError, AttributeError, NotImplementedError, copy.Error, ValueError)
"""What ``copy.deepcopy`` raises on locks, open files, generators and tensors with a history."""


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside data-parallel and compilation wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(
            model, nn.DataParallel | nn.parallel.DistributedDataParallel | torch.optim.swa_utils.AveragedModel
        ):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def make_skeleton(model: nn.Module) -> nn.Module:
    """Copy the module tree without copying tensors, hooks or gradients.

    Attributes that ``forward`` may change (caches, counters, lists) are copied; a model with attributes that can't be
    (locks, open files, generators) is copied one module at a time instead, sharing those attributes.
    """
    memo: dict[int, Any] = {}
    for tensor in _tensors(model):
        memo[id(tensor)] = tensor
    try:
        skeleton = copy.deepcopy(model, memo)
    except UNCOPIABLE:
        skeleton = _copy_tree(model, {id(tensor): tensor for tensor in _tensors(model)})
    for module in skeleton.modules():
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            # The user's hooks may write to the user's objects; parametrizing ones (spectral norm) compute weights,
            # and transformers' own hooks collect the hidden states that its heads read.
            kept = {
                k: h
                for k, h in getattr(module, hooks).items()
                if _maker(h).startswith(("torch.nn.utils", "transformers."))
            }
            if not isinstance(module, torch.jit.ScriptModule):
                setattr(module, hooks, type(getattr(module, hooks))(kept))
    return skeleton


def _maker(hook: Any) -> str:
    """Module that defines a hook: a function, or an object of some class."""
    return str(getattr(hook, "__module__", None) or type(hook).__module__)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        for value in [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]:
            if isinstance(value, Tensor):
                yield value
                if value.grad_fn is None and value.grad is not None:
                    yield value.grad


def _copy_tree(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Copy module by module and attribute by attribute; what can't be copied is shared."""
    if id(module) in memo:
        return memo[id(module)]
    duplicate: nn.Module = module.__class__.__new__(module.__class__)
    memo[id(module)] = duplicate
    for child in filter(None, module._modules.values()):  # before attributes that may refer to one
        _copy_tree(child, memo)
    for key, value in vars(module).items():
        duplicate.__dict__[key] = _copy_value(value, memo)
    return duplicate


def _copy_value(value: Any, memo: dict[int, Any]) -> Any:
    if id(value) in memo:
        return memo[id(value)]
    try:
        return copy.deepcopy(value, memo)
    except UNCOPIABLE:
        # Containers are still taken apart, so that only the entry at fault is shared.
        if type(value) in (dict, list, OrderedDict):
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            shared = copy.copy(value)
            for key, entry in entries:
                shared[key] = _copy_value(entry, memo)
            return shared
        return value


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Restore the random state of torch (CPU and initialized GPUs), numpy and random afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        random.seed(0)  # whatever is drawn inside is the same at every call
        np.random.seed(0)
        torch.default_generator.manual_seed(0)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


class ParameterRegistry:
    """Recognizes a model's parameters by identity or storage, never by name."""

    def __init__(self, model: nn.Module, skeleton: nn.Module) -> None:
        self.names: list[list[str]] = []
        """All names of each distinct parameter tensor."""
        self.tensors: list[Tensor] = []
        self._by_id: dict[int, int] = {}
        self._by_place: dict[tuple[Any, ...], int] = {}
        self._by_storage: dict[int, int] = {}
        for name, tensor in model.named_parameters(remove_duplicate=False):
            if isinstance(tensor, nn.UninitializedParameter):
                raise TraceError(
                    f"{name!r} of {type(model).__name__} has no shape yet (a lazy module); call the model once on real "
                    "inputs first"
                )
            self._add(name, tensor)
        # Some modules (ScriptModules among them) copy their tensors all the same: match those by name.
        numbers = {name: number for number, names in enumerate(self.names) for name in names}
        for name, tensor in skeleton.named_parameters(remove_duplicate=False):
            number = numbers.get(name)
            if number is not None and id(tensor) not in self._by_id:
                self._by_id[id(tensor)] = number
                self._by_storage.setdefault(storage_key(tensor), number)
                self.tensors.append(tensor)  # keeps the id alive

    def _add(self, name: str, tensor: Tensor) -> None:
        place = (
            (storage_key(tensor), tensor.storage_offset(), tensor.shape, tensor.stride())
            if has_storage(tensor)
            else None
        )
        number = self._by_id.get(id(tensor))
        if number is None and place is not None:
            number = self._by_place.get(place)
        if number is None:
            number = len(self.names)
            self.names.append([])
            self.tensors.append(tensor)
            if place is not None:
                self._by_place[place] = number
                shared = self._by_storage.setdefault(place[0], number)
                if shared != number:  # several parameters in one buffer: only exact views tell them apart
                    self._by_storage[place[0]] = -1
        self._by_id[id(tensor)] = number
        if name not in self.names[number]:
            self.names[number].append(name)

    def find(self, tensor: Tensor) -> int | None:
        """Number of the parameter a tensor is or aliases, or None."""
        number = self._by_id.get(id(tensor))
        if number is None and has_storage(tensor):
            storage = storage_key(tensor)
            if storage in self._by_storage:
                number = self._by_storage[storage]
                if number < 0:
                    place = (storage, tensor.storage_offset(), tensor.shape, tensor.stride())
                    number = self._by_place.get(place)
        return number


def has_storage(tensor: Tensor) -> bool:
    """Whether a tensor has one plain storage (sparse and nested ones, and wrapper subclasses, may not)."""
    return tensor.layout == torch.strided and not tensor.is_nested


def storage_key(tensor: Tensor) -> int:
    """Identity of a tensor's storage, shared by its views; of the tensor itself where it has none."""
    return tensor.untyped_storage()._cdata if has_storage(tensor) else -id(tensor)
