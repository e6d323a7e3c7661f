"""A stand-in that runs like the model and shares its tensors, so that tracing copies no weight and changes nothing."""

import copy
import sys
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from functools import cache, partial
from types import BuiltinFunctionType, CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from ghn.errors import ModelError
from ghn.tensors import whole

UNCOPIABLE = (TypeError, RuntimeError, AttributeError, NotImplementedError, copy.Error, ValueError)
"""What ``copy.deepcopy`` raises on locks, open files, generators and tensors with a history."""


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

PRIVATE = frozenset(name for name, value in vars(nn.Module()).items() if isinstance(value, dict))
"""Dictionaries that every module has, mostly empty ones, and that no two modules share."""

ATOMS = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, type, range),
        *(object, BuiltinFunctionType, torch.Size, torch.dtype, torch.device),
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


def make_skeleton(model: nn.Module, hooks: bool = False) -> nn.Module:
    """Copy the module tree without copying tensors or gradients.

    Attributes that ``forward`` may change (caches, counters, lists) are copied, and what leads back to the model
    (methods, closures, weak references) leads to the copy; what can't be copied (locks, open files, generators) is
    shared.

    Args:
        model: Not changed.
        hooks: Whether the user's hooks are copied, too. Those of torch's parametrizations (spectral norm) and of
            transformers always are: the former compute weights, the latter collect what its heads read.
    """
    tree = frozenset(id(module) for module in model.modules())
    skeleton = Copier({id(tensor): whole(tensor) for tensor in _tensors(model)}, tree).module(model)
    for module in skeleton.modules():
        for name in HOOKS:
            own = getattr(module, name)
            if own and not isinstance(module, torch.jit.ScriptModule):
                setattr(
                    module,
                    name,
                    type(own)({key: hook for key, hook in own.items() if _runs(hook, hooks)}),
                )
    return skeleton


def has_hooks(model: nn.Module) -> bool:
    """Whether the user hooked something into a model's forward pass that a skeleton leaves out at first."""
    return any(
        _runs(hook, True) and not _runs(hook, False)
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule)
        for name in HOOKS[:2]
        for hook in getattr(module, name).values()
    )


def _runs(hook: Any, users: bool) -> bool:
    maker = _maker(hook)
    return maker.startswith(("torch.nn.utils", "transformers.")) or (users and not maker.startswith("torch."))


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


class Copier:
    """Copies module by module and attribute by attribute, as ``copy.deepcopy`` does but several times faster.

    Args:
        memo: What takes the place of some objects, by their ids. Other tensors are shared.
        tree: Ids of modules; weak references to them are made to lead to their copies.
    """

    def __init__(self, memo: dict[int, Any], tree: frozenset[int] = frozenset()) -> None:
        self._memo, self._tree = memo, tree

    def module(self, module: nn.Module) -> nn.Module:
        """A copy whose tensors are the module's own."""
        if id(module) in self._memo:
            return self._memo[id(module)]
        kind = _plain_class(type(module))
        if _copies_itself(kind):
            try:
                clone: nn.Module = copy.deepcopy(module, self._memo)
                return clone
            except UNCOPIABLE:
                pass
        duplicate: nn.Module = kind.__new__(kind)
        self._memo[id(module)] = duplicate
        attributes = duplicate.__dict__
        for key, value in vars(module).items():
            attributes[key] = type(value)() if key in PRIVATE and not value else self.value(value)
        return duplicate

    def value(self, value: Any) -> Any:
        """A copy of anything, or the value itself where there is nothing to copy."""
        kind: Any = type(value)
        if kind in ATOMS:
            return value
        if id(value) in self._memo:
            return self._memo[id(value)]
        if kind in _REFERENCES:
            return _REFERENCES[kind](self, value)
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, Tensor):
            return value  # a trace writes to no tensor that it didn't make
        if kind is tuple:
            return value if all(type(entry) in ATOMS for entry in value) else tuple(map(self.value, value))
        if kind is set:
            self._memo[id(value)] = {self.value(entry) for entry in value}
            return self._memo[id(value)]
        if kind is list:
            self._memo[id(value)] = entries = []  # known before its entries, which may hold it
            entries += [self.value(entry) for entry in value]
            return entries
        if kind is deque:
            queue: deque[Any] = deque(maxlen=value.maxlen)
            self._memo[id(value)] = queue
            queue.extend(self.value(entry) for entry in value)
            return queue
        if kind is dict or kind is OrderedDict or kind is defaultdict:
            mapping: Any = kind(value.default_factory) if kind is defaultdict else kind()
            self._memo[id(value)] = mapping
            for key, entry in value.items():
                mapping[key] = self.value(entry)
            return mapping
        if _is_plain(kind):
            self._memo[id(value)] = plain = kind.__new__(kind)
            vars(plain).update({key: self.value(entry) for key, entry in vars(value).items()})
            return plain
        try:
            return copy.deepcopy(value, self._memo)
        except UNCOPIABLE:
            return value  # locks, open files, generators: shared

    def _function(self, function: FunctionType) -> FunctionType:
        """The same code over copies of what it closes over, so that a closure over the model reaches the copy."""
        defaults, keywords = function.__defaults__ or (), function.__kwdefaults__ or {}
        plain = all(type(value) in ATOMS for value in (*defaults, *keywords.values()))
        if (plain and not function.__closure__) or (function.__module__ or "").partition(".")[0] == "torch":
            return function
        closure = function.__closure__ or ()
        cells = tuple([self._memo.setdefault(id(cell), CellType()) for cell in closure])
        code, space, name = function.__code__, function.__globals__, function.__name__
        duplicate = FunctionType(code, space, name, tuple(map(self.value, defaults)) or None, cells)
        duplicate.__kwdefaults__ = {key: self.value(value) for key, value in keywords.items()} or None
        duplicate.__dict__.update(vars(function))
        duplicate.__module__, duplicate.__qualname__ = function.__module__, function.__qualname__
        self._memo[id(function)] = duplicate
        for cell, new in zip(closure, cells, strict=True):
            if not _is_filled(new) and _is_filled(cell):
                new.cell_contents = self.value(cell.cell_contents)
        return duplicate

    def _method(self, method: MethodType) -> MethodType:
        return MethodType(method.__func__, self.value(method.__self__))

    def _partial(self, call: Any) -> Any:
        duplicate = partial(self.value(call.func), *map(self.value, call.args), **self.value(call.keywords))
        vars(duplicate).update(vars(call))
        return duplicate

    def _reference(self, reference: Any) -> Any:
        target = reference()
        return weakref.ref(self.module(target)) if id(target) in self._tree else reference

    def _proxy(self, proxy: Any) -> Any:
        try:
            target = proxy.__init__.__self__
        except ReferenceError:  # it is gone
            return proxy
        return weakref.proxy(self.module(target)) if id(target) in self._tree else proxy


_REFERENCES: dict[Any, Callable[[Copier, Any], Any]] = {
    FunctionType: Copier._function,
    MethodType: Copier._method,
    partial: Copier._partial,
    weakref.ReferenceType: Copier._reference,
    weakref.ProxyType: Copier._proxy,
    weakref.CallableProxyType: Copier._proxy,
}
"""What may lead to a module of the tree other than by an attribute, with what makes it lead to the copy."""


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


@cache
def _is_plain(kind: type) -> bool:
    """Whether objects of a class are their ``__dict__`` and nothing else."""
    return (
        kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and getattr(kind, "__getstate__", None) is getattr(object, "__getstate__", None)
        and not any(
            hasattr(kind, name) for name in ("__deepcopy__", "__setstate__", "__getnewargs__", "__del__")
        )
        and not any("__slots__" in vars(base) for base in kind.__mro__)
        and all(base is object or base.__flags__ & _HEAP_TYPE for base in kind.__mro__)
        and kind.__new__ is object.__new__
        and kind.__dictoffset__ != 0
    )


_HEAP_TYPE = 1 << 9
"""Flag of classes that are written in Python."""


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
