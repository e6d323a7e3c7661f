"""Give a model on the meta device memory, and what no prediction covers its own initial values."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ghn.errors import ConfigError, PredictionError
from ghn.settings import untouched_randomness
from ghn.tensors import is_distributed, local_part

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

OWN_MEANS = {
    "_parameters": ("reset_parameters",),
    "_buffers": ("_init_buffers", "init_non_persistent_buffers", "reset_parameters", "reset_running_stats"),
}
"""Methods by which modules of torch and timm compute their initial parameters and their buffers, the first found."""


@dataclass(frozen=True)
class _Entry:
    """One parameter or buffer of one module."""

    module: nn.Module
    table: str
    """'_parameters' or '_buffers'."""
    key: str
    name: str

    @property
    def tensor(self) -> Tensor:
        return getattr(self.module, self.table)[self.key]

    @property
    def persistent(self) -> bool:
        """Whether the state dictionary holds it."""
        return self.table == "_parameters" or self.key not in self.module._non_persistent_buffers_set

    def put(self, tensor: Tensor) -> None:
        getattr(self.module, self.table)[self.key] = tensor


def check_target(device: Any, dtype: torch.dtype | None) -> torch.device | None:
    """Read the device and dtype that a model is asked to be on.

    Raises:
        ConfigError: If there is no such device here, or predicted weights can't be of this dtype.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r} can't hold weights; pass one of {', '.join(map(str, DTYPES))}")
    if device is None:
        return None
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"device={device!r} can't be used here: {reason}; pass 'cpu', 'cuda', 'cuda:1' …"
        ) from error
    if target.type == "meta":
        raise ConfigError("device='meta' holds no values; pass the device that the weights are for")
    return target


@contextmanager
def materialized(
    model: nn.Module,
    names: frozenset[str],
    device: torch.device | None,
    dtype: torch.dtype | None,
    seed: int = 0,
    whole: bool = True,
) -> Iterator[None]:
    """Replace a model's meta tensors by memory on a device; if the body fails, put them back.

    Tied parameters stay tied. Those that aren't predicted, and buffers, get the values that their modules compute for
    them: by the methods of ``OWN_MEANS`` or ``_init_weights`` of transformers. Parameters, and buffers that belong to
    the state dictionary, get the dtype asked for, other buffers keep theirs, as ``from_pretrained`` has it.

    Args:
        model: Changed in place, its module tree stays.
        names: First names of the parameters that will be written in the body.
        device: Where meta tensors go; None is the CPU, or of a distributed tensor its mesh's device.
        dtype: Type of floating-point parameters; None is each one's own.
        seed: Seed of what is drawn for parameters that aren't predicted.
        whole: False leaves parameters that will be predicted on the meta device, and puts the others back there.

    Raises:
        PredictionError: If nothing is known about the values of a buffer or parameter; names it.
    """
    targets = {id(tensor) for name, tensor in model.named_parameters() if name in names}
    entries = [entry for entry in _entries(model) if entry.tensor.is_meta]
    entries = [entry for entry in entries if whole or id(entry.tensor) not in targets]
    before = [(entry, entry.tensor) for entry in entries]
    real = [tensor for tensor in (*model.parameters(), *model.buffers()) if not tensor.is_meta]
    own = _own_means(model, [entry for entry in entries if id(entry.tensor) not in targets])
    twins: dict[int, Tensor] = {}
    try:
        for entry in entries:
            old = entry.tensor
            if id(old) not in twins:
                twins[id(old)] = _memory(entry, device, dtype, marked=entry in own)
            entry.put(twins[id(old)])
        if any(map(is_distributed, twins.values())):
            model._apply(lambda tensor: tensor)  # FSDP notes its parameters anew after every ``_apply``
        with untouched_randomness(), torch.no_grad(), _unchanged(real if own else []):
            garbage = _fill(own, seed)
        if garbage is not None:
            raise PredictionError(_why_unknown(type(model).__name__, garbage))
        yield
    except BaseException:
        whole = False
        raise
    finally:
        if not whole:
            for entry, tensor in before:
                entry.put(tensor)


@contextmanager
def _unchanged(tensors: list[Tensor]) -> Iterator[None]:
    """Put values back at the end: a module's own means write more than was asked for."""
    values = [tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)


def move_(model: nn.Module, device: torch.device | None, dtype: torch.dtype | None) -> None:
    """Move a model with values; buffers outside of the state dictionary (rotary frequencies) keep their precision."""
    if device is None and dtype is None:
        return
    for entry in _entries(model):
        tensor = entry.tensor
        if not tensor.is_meta:
            kind = dtype if tensor.is_floating_point() and entry.persistent else None
            twin = tensor.to(device=device or tensor.device, dtype=kind or tensor.dtype)
            if twin is not tensor:
                tensor.data = twin.data


def _entries(model: nn.Module) -> Iterator[_Entry]:
    for prefix, module in model.named_modules():
        for table in ("_parameters", "_buffers"):
            for key, tensor in getattr(module, table).items():
                if tensor is not None:
                    yield _Entry(module, table, key, f"{prefix}.{key}" if prefix else key)


@dataclass(frozen=True)
class _Means:
    """A call that computes the values of a module's own tensors; equal for equal modules."""

    method: Callable[..., object]
    arguments: tuple[Any, ...] = ()

    def __call__(self) -> None:
        self.method(*self.arguments)


def _own_means(model: nn.Module, entries: list[_Entry]) -> dict[_Entry, list[_Means]]:
    """What computes each entry's values, one after the other."""
    modules: dict[str, Any] = dict(model.named_modules())
    ancestors: dict[str, Any] = {
        name: module
        for name, module in modules.items()
        if hasattr(module, "_init_weights") and hasattr(module, "config")  # models of transformers
    }
    means_of = {}
    for entry in entries:
        parts = entry.name.split(".")[:-1]
        prefixes = [".".join(parts[:count]) for count in range(len(parts), -1, -1)]
        nearest = next((prefix for prefix in prefixes if prefix in ancestors), None)
        names = (name for name in OWN_MEANS[entry.table] if hasattr(entry.module, name))
        own = next((getattr(entry.module, name) for name in names), None)
        if nearest is not None:
            # A fixed table is filled by the module that holds its own, as Whisper's encoder does.
            inside = prefixes[: prefixes.index(nearest) + 1]
            holders = inside[:1] if entry.table == "_buffers" or entry.tensor.requires_grad else inside
            means = ancestors[nearest]._init_weights
            means_of[entry] = [_Means(means, (modules[prefix],)) for prefix in holders]
        elif own is not None:
            means_of[entry] = [_Means(own)]
        else:
            raise PredictionError(_why_unknown(type(model).__name__, entry))
    return means_of


def _fill(own: dict[_Entry, list[_Means]], seed: int) -> _Entry | None:
    """Let modules compute their own tensors; gives the first that holds what memory happened to hold.

    Memory is filled with marks before. Whether a mark that is left was written (half of a causal mask is False), or a
    value was made of one, shows when all is computed once more over other marks: what depends on them is different.
    No arithmetic makes a number of NaN, so real tensors without any need no second time.
    """

    def run() -> None:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        for means in dict.fromkeys(chain.from_iterable(own.values())):
            means()

    run()
    first = {entry: local_part(entry.tensor).clone() for entry in own if _may_be_marked(entry.tensor)}
    if not first:
        return None
    for entry in first:
        entry.tensor.fill_(_mark(entry.tensor.dtype, second=True))
    run()
    return next((entry for entry, values in first.items() if _differ(values, local_part(entry.tensor))), None)


def _may_be_marked(tensor: Tensor) -> bool:
    real = tensor.is_floating_point() or tensor.is_complex()
    return not real or bool(local_part(tensor).isnan().any())


def _differ(one: Tensor, other: Tensor) -> bool:
    both_nan = one.isnan() & other.isnan()
    return bool(((one != other) & ~both_nan).any())


def _memory(entry: _Entry, device: torch.device | None, dtype: torch.dtype | None, marked: bool) -> Tensor:
    """Memory for one meta tensor, perhaps marked so that it shows whether something was written."""
    old = entry.tensor
    kind = dtype if dtype is not None and old.is_floating_point() and entry.persistent else old.dtype
    if is_distributed(old):
        from torch.distributed.tensor import DTensor

        assert isinstance(old, DTensor)
        place = device or torch.device(old.device_mesh.device_type)
        local = torch.empty_like(old.to_local(), device=place, dtype=kind)
        tensor: Tensor = DTensor.from_local(
            local, old.device_mesh, old.placements, run_check=False, shape=old.shape, stride=old.stride()
        )
    else:
        tensor = torch.empty_strided(old.shape, old.stride(), dtype=kind, device=device or "cpu")
    if marked:
        tensor.fill_(_mark(kind))
    if entry.table == "_buffers":
        return tensor
    parameter = nn.Parameter(tensor, requires_grad=old.requires_grad)
    attributes = {key: value for key, value in vars(old).items() if key != "_is_hf_initialized"}
    parameter.__dict__.update(attributes)
    return parameter


def _mark(dtype: torch.dtype, second: bool = False) -> float | int | bool:
    if dtype == torch.bool:
        return second
    if dtype.is_floating_point or dtype.is_complex:
        return 7.0 if second else float("nan")
    return torch.iinfo(dtype).max - second


def _why_unknown(model: str, entry: _Entry) -> str:
    is_buffer = entry.table == "_buffers"
    what = "buffer" if is_buffer else "parameter, which isn't predicted,"
    remedy = (
        "with ghn.load_model(SPEC, device='meta'), which keeps buffers real (python:FILE.py:FACTORY for your own)"
        if is_buffer
        else "on a real device"
    )
    return (
        f"{model}'s {entry.name!r} is a {what} on the meta device, and nothing is known about its values, or some of "
        f"them: {type(entry.module).__name__} computes it in its constructor alone. Construct the model {remedy}, or "
        "call model.to_empty(device='cpu') and fill it"
    )
