"""Example inputs: how a call's arguments are read, and the tensors in them, however deep they lie."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ghn.tracing.skeleton import Copier

LEAVES = (
    *(type(None), bool, int, float, complex, str, bytes, type, torch.dtype, torch.device),
    *(nn.Module, ModuleType, FunctionType, BuiltinFunctionType, MethodType),
)
"""Types whose values hold no tensors, or none that belong to whoever refers to them."""

MAX_VISITED = 2**16
"""Objects among which tensors are looked for; large tables of other things hold none."""


def call_arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of the call that some inputs stand for.

    A mapping (a dict, a ``BatchEncoding``) holds keyword arguments, a plain tuple or list positional ones; anything
    else is one argument: a tensor, torch-geometric's ``Data``, a named tuple such as ``PackedSequence``, a dataclass.
    """
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    plain = isinstance(inputs, list) or (isinstance(inputs, tuple) and not hasattr(inputs, "_fields"))
    return (tuple(inputs), {}) if plain else ((inputs,), {})


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors of nested containers, dataclasses and objects, each once."""
    seen: dict[int, Any] = {}
    pending = deque([value])
    while pending and len(seen) < MAX_VISITED:
        entry = pending.popleft()
        if isinstance(entry, LEAVES) or id(entry) in seen:
            continue
        seen[id(entry)] = entry
        if isinstance(entry, Tensor):
            yield entry
        else:
            pending.extendleft(reversed(list(_entries(entry))))  # what lies inside comes before what follows


def _entries(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from dict.values(value)
    elif isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from value
    elif is_dataclass(value):
        yield from (getattr(value, entry.name, None) for entry in fields(value))
    else:
        yield from getattr(value, "__dict__", {}).values()
        kind: Any = type(value)
        yield from (getattr(value, name, None) for name in slots_of(kind))


@cache
def slots_of(kind: Any) -> tuple[str, ...]:
    """Names of the slots of a class's objects."""
    slots = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    names = [name for entry in slots for name in ((entry,) if isinstance(entry, str) else entry)]
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def convert_tensors(
    value: Any, convert: Callable[[Tensor], Tensor]
) -> tuple[Any, list[Tensor], list[Tensor]]:
    """Copy a nested value with every tensor replaced, in objects of any class.

    Args:
        value: Left alone.
        convert: Called once for each tensor.

    Returns:
        The copy, the new tensors in order, and the old ones that are left in it, inside of what can't be copied.
    """
    old = {id(tensor): tensor for tensor in tensors_in(value)}
    memo: dict[int, Any] = {key: convert(tensor) for key, tensor in old.items()}
    tensors = list(memo.values())

    def convert_further(tensor: Tensor) -> Tensor:
        tensors.append(convert(tensor))
        return tensors[-1]

    with _Conversion(convert_further):  # tensors inside of what only knows itself how it is copied
        duplicate = Copier(memo).value(value)
    return duplicate, tensors, [tensor for tensor in tensors_in(duplicate) if id(tensor) in old]


class _Conversion(TorchFunctionMode):
    """Makes copies of tensors something else."""

    def __init__(self, convert: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._convert = convert

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = self._convert(tensor)
        return memo[id(tensor)]
