"""Shapes of unknown results: by a rule, remembered from an equal call, or from the operation's own meta kernel."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

MAX_REMEMBERED = 2**16
"""Calls whose results are remembered, at about 1 kB each."""

RECURRENT = frozenset(getattr(torch.ops.aten, name).input for name in ("lstm", "gru", "rnn_tanh", "rnn_relu"))
"""Operations whose meta kernels unroll every step of the sequence."""


class _Form(NamedTuple):
    """Everything there is to a fresh meta tensor."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def make(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


class _UnfitError(Exception):
    """A value is more than its form."""


_results: dict[Any, Any] = {}


def map_tensors(convert: Callable[[Tensor], Any], value: Any) -> Any:
    """Replace every tensor in the arguments of an operation: nested lists, tuples and dicts, nothing else."""
    if isinstance(value, Tensor):
        return convert(value)
    kind = type(value)
    if kind is list or kind is tuple:
        return kind([map_tensors(convert, entry) for entry in value])
    if kind is dict:
        return {name: map_tensors(convert, entry) for name, entry in value.items()}
    return value


def to_meta(value: Any) -> Any:
    """Replace every tensor of an operation's arguments by a meta tensor of the same shape, stride and type."""
    return map_tensors(_meta_twin, value)


def _meta_twin(tensor: Tensor) -> Tensor:
    if tensor.is_meta:
        return tensor
    if tensor.layout != torch.strided:
        return tensor.to("meta")
    # Views must agree with their base on being inference tensors, so a twin is what its original is.
    with torch.inference_mode(tensor.is_inference()):
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def result_on_meta(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Result of an operation as meta tensors, computed once for all calls of one signature.

    A meta kernel is a function of shapes, strides, types and plain arguments. Most are written in Python and take up to
    a millisecond, while deep models repeat a few signatures. Results that share memory with an operand (views, dropout
    that is off) are never remembered, nor are those of operations that write in place.

    Args:
        func: The operator overload.
        args: Positional arguments; of a tensor, real or meta, only the form counts.
        kwargs: Keyword arguments, likewise.
    """
    if func in RECURRENT:
        return _recurrent_result(*args)
    try:
        if not _is_functional(func):
            raise _UnfitError
        key = (func, torch.get_default_dtype(), _signature(args), _signature(kwargs))
    except _UnfitError:
        return func(*to_meta(args), **to_meta(kwargs))
    if key in _results:
        return _make(_results[key])
    args, kwargs = to_meta(args), to_meta(kwargs)
    result = func(*args, **kwargs)
    try:
        form = _form(result, _storages(args) | _storages(kwargs))
    except _UnfitError:
        return result
    if len(_results) >= MAX_REMEMBERED:
        _results.clear()
    _results[key] = form
    return result


def forget() -> None:
    """Drop all remembered results: the next trace takes as long as the first one."""
    _results.clear()


def _recurrent_result(
    data: Tensor,
    state: Tensor | list[Tensor],
    params: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """Sequence of outputs, and the last states, of a recurrent block."""
    states = [state] if isinstance(state, Tensor) else list(state)
    steps, batch = data.shape[1 if batch_first else 0], data.shape[0 if batch_first else 1]
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    outputs = torch.empty(steps, batch, width, dtype=data.dtype, device="meta")
    last = [torch.empty(each.shape, dtype=data.dtype, device="meta") for each in states]
    return (outputs.transpose(0, 1) if batch_first else outputs, *last)


@cache
def _is_functional(func: Any) -> bool:
    """Whether an operation's schema promises new results; other libraries' kernels may do as they like."""
    schema = func._schema
    return func.namespace == "aten" and all(
        entry.alias_info is None for entry in (*schema.arguments, *schema.returns)
    )


def _signature(value: Any) -> Any:
    kind = type(value)
    if kind is Tensor or kind is nn.Parameter:
        if value.layout is not torch.strided or value.is_complex():  # complex values may be conjugated lazily
            raise _UnfitError
        return value.shape, value.stride(), value.dtype
    if kind is list or kind is tuple:
        return tuple([_signature(entry) for entry in value])
    if kind is dict:
        return tuple([(name, _signature(entry)) for name, entry in value.items()])
    if kind not in _PLAIN:
        raise _UnfitError
    return kind, value  # 1, 1.0 and True are equal


_PLAIN = frozenset(
    {
        *(type(None), bool, int, float, str),
        *(torch.dtype, torch.device, torch.layout, torch.memory_format),
    }
)
"""Types of arguments that are nothing but their value."""


def _storages(value: Any) -> set[int]:
    if isinstance(value, Tensor):
        return {value.untyped_storage()._cdata}
    if isinstance(value, list | tuple):
        return {storage for entry in value for storage in _storages(entry)}
    return _storages(list(value.values())) if isinstance(value, dict) else set()


def _form(result: Any, storages: set[int]) -> Any:
    """Form of a result whose tensors have a memory of their own; adds theirs to ``taken``."""
    if type(result) is Tensor and result.is_meta and result.layout is torch.strided:
        storage = result.untyped_storage()._cdata
        if storage in storages or result.is_complex() or result.storage_offset():
            raise _UnfitError
        storages.add(storage)
        return _Form(tuple(result.shape), result.stride(), result.dtype)
    if isinstance(result, list | tuple):
        return [_form(entry, storages) for entry in result]
    if result is None:
        return None
    raise _UnfitError


def _make(form: Any) -> Any:
    if isinstance(form, _Form):
        return form.make()
    return form and [_make(entry) for entry in form]
