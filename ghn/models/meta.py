"""Construct a model whose parameters take no memory, even if its constructor reads values."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

MAX_REAL_NUMEL = 2**24
"""Factories make larger tensors on meta at once: banks of experts can't even be reserved."""

_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)

_WRITES = frozenset("normal_ uniform_ zero_ fill_ mul_ add_ sub_ clamp_ erfinv_ copy_".split())
"""In-place operations of initializers, those of ``torch.nn.init`` apart; they have nothing to write to on meta, where
each still takes a millisecond."""


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Inside, a parameter moves to the meta device when a module registers it; every other tensor stays real.

    So a constructor can read what it computes (``torch.linspace(…).tolist()`` for drop rates, RegNet's widths), and
    buffers and fixed parameters (tables of sines) keep their values. A parameter that is registered twice stays one
    tensor.
    """
    twins = WeakIdKeyDictionary()

    def to_meta(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter:
        fixed = not parameter.requires_grad
        if fixed or parameter.is_meta or isinstance(parameter, nn.UninitializedParameter):
            return parameter
        if parameter not in twins:
            twin = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
            twin.__dict__.update(parameter.__dict__)
            twins[parameter] = twin
        return twins[parameter]

    handle = register_module_parameter_registration_hook(to_meta)  # type: ignore[arg-type]
    try:
        with _SmallTensorsReal():
            yield
    finally:
        handle.remove()


@lru_cache(maxsize=4096)
def _initializes(func: Any) -> bool:
    return getattr(func, "__name__", "") in _WRITES or getattr(func, "__module__", "") == "torch.nn.init"


class _SmallTensorsReal(TorchFunctionMode):
    """Keep small tensors on the CPU even next to meta parameters, and let both meet in one operation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _initializes(func):
            target = args[0] if args else kwargs.get("tensor")
            if isinstance(target, Tensor) and target.is_meta:
                return target
        device = kwargs.get("device")
        if device is not None and str(device) == "meta":
            # Constructors copy the device of a parameter: buffers made there would have no values.
            kwargs = {**kwargs, "device": None}
        if func in _FACTORIES and kwargs.get("device") is None:
            twin: Tensor = func(*args, **{**kwargs, "device": "meta"})
            if twin.numel() > MAX_REAL_NUMEL:
                return twin
        try:
            return func(*args, **kwargs)
        except (RuntimeError, NotImplementedError):
            # Some constructors run their stem on a real image to learn its output shape.
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            if len({tensor.is_meta for tensor in tensors}) < 2 or getattr(func, "__name__", "").endswith("_"):
                raise
            args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
            return func(*args, **kwargs)
