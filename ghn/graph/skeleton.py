"""A stand-in that runs like the model and shares its tensors, so that tracing copies no weight and changes nothing."""

import copy
import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import BuiltinFunctionType, FunctionType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ghn.errors import ModelError, TraceError

UNCOPIABLE = (TypeError, RuntimeError, AttributeError, NotImplementedError, copy.Error, ValueError)
"""What ``copy.deepcopy`` raises on locks, open files, generators and tensors with a history."""


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

PRIVATE = frozenset(name for name, value in vars(nn.Module()).items() if isinstance(value, dict))
"""Dictionaries that every module has, mostly empty ones, and that no two modules share."""

ATOMS = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, type, range),
        *(FunctionType, BuiltinFunctionType, torch.Size, torch.dtype, torch.device),
    }
)
"""Types whose values a copy shares."""


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside data-parallel and compilation wrappers.

    Raises:
        ModelError: If it isn't a module.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"expected a torch.nn.Module, got {type(model).__name__}; ghn.load_model makes one from a "
            "specification such as 'timm:resnet18'"
        )
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

    Attributes that ``forward`` may change (caches, counters, lists) are copied; those that can't be (locks, open
    files, generators) are shared.
    """
    skeleton = _copy_module(model, {id(tensor): whole(tensor) for tensor in _tensors(model)})
    for module in skeleton.modules():
        for name in HOOKS:
            hooks = getattr(module, name)
            # The user's hooks may write to the user's objects; parametrizing ones (spectral norm) compute weights,
            # and transformers' own hooks collect the hidden states that its heads read.
            if hooks and not isinstance(module, torch.jit.ScriptModule):
                kept = {
                    key: hook
                    for key, hook in hooks.items()
                    if _maker(hook).startswith(("torch.nn.utils", "transformers."))
                }
                setattr(module, name, type(hooks)(kept))
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


def _copy_module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Copy module by module and attribute by attribute, as ``copy.deepcopy`` does but several times faster."""
    if id(module) in memo:
        return memo[id(module)]
    kind = _plain_class(type(module))
    if _copies_itself(kind):
        try:
            copied: nn.Module = copy.deepcopy(module, memo)
            return copied
        except UNCOPIABLE:
            pass
    duplicate: nn.Module = kind.__new__(kind)
    memo[id(module)] = duplicate
    attributes = duplicate.__dict__
    for key, value in vars(module).items():
        attributes[key] = type(value)() if key in PRIVATE and not value else _copy_value(value, memo)
    return duplicate


def is_distributed(tensor: Tensor) -> bool:
    """Whether this process holds only a part of a tensor."""
    distributed = sys.modules.get("torch.distributed.tensor")  # slow to import for those who don't use it
    return distributed is not None and isinstance(tensor, distributed.DTensor)


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: all of it, unless it is distributed."""
    return cast(Any, tensor).to_local() if is_distributed(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or of a distributed one a meta tensor of its whole shape."""
    if not is_distributed(tensor):
        return tensor
    twin = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin


def _plain_class(kind: Any) -> Any:
    """The class of a module before ``fully_shard`` replaced it by one that communicates."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return kind.__mro__[2] if fsdp is not None and issubclass(kind, fsdp.FSDPModule) else kind


@cache
def _copies_itself(kind: Any) -> bool:
    """Whether a class says how its modules are copied (ScriptModules, graph modules)."""
    return any(
        getattr(kind, name, None) is not getattr(nn.Module, name, None)
        for name in ("__deepcopy__", "__reduce_ex__", "__reduce__", "__getstate__")
    )


def _copy_value(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in ATOMS:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, nn.Module):
        return _copy_module(value, memo)
    if kind is tuple and all(type(entry) in ATOMS for entry in value):
        return value
    if kind is set:
        memo[id(value)] = {_copy_value(entry, memo) for entry in value}
        return memo[id(value)]
    if kind is list:
        memo[id(value)] = entries = []  # known before its entries, which may hold it
        entries += [_copy_value(entry, memo) for entry in value]
        return entries
    if kind is dict or kind is OrderedDict:
        memo[id(value)] = mapping = kind()
        for key, entry in value.items():
            mapping[key] = _copy_value(entry, memo)
        return mapping
    try:
        return copy.deepcopy(value, memo)
    except UNCOPIABLE:
        return value  # locks, open files, generators: shared


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
    """Whether a tensor has one plain storage (sparse, nested and distributed ones have not)."""
    return tensor.layout == torch.strided and not tensor.is_nested and not is_distributed(tensor)


def storage_key(tensor: Tensor) -> int:
    """Identity of a tensor's storage, shared by its views; of the tensor itself where it has none."""
    return tensor.untyped_storage()._cdata if has_storage(tensor) else -id(tensor)
