"""What an operation returns while tracing: the truth for known values, shapes alone for everything else."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from ghn.tracing.forms import result_on_meta, to_meta

MAX_KNOWN_NUMEL = 2**22
"""Constants above this size are not computed; only their shapes are."""

MAX_ONES_NUMEL = 2**28
"""Operations on more values than these (1 GB) are not run for the shape of their result."""

FACTORIES = frozenset(
    "arange zeros ones full empty eye linspace logspace scalar_tensor tril_indices triu_indices hann_window "
    "hamming_window range empty_strided rand randn randint randperm".split()
)

SELECTIONS = frozenset(
    "topk argmax argmin argsort sort multinomial max min median mode kthvalue cummax cummin".split()
)
"""Operations whose integer results choose among entries: answered by going round all of them."""

ANSWERS = frozenset("item _local_scalar_dense is_nonzero equal allclose".split())
"""Operations that return a Python value."""


PATIENCE = 1000
"""Unknown answers in one run, after which they start to change: the target may loop until it gets another one."""


def ones_like_meta(value: Any, integer: int = 0) -> Any:
    """Replace every meta tensor of a nested value by ones on the CPU, integers by ``integer`` (0 is a valid index)."""

    def convert(tensor: Tensor) -> Tensor:
        if tensor.device.type != "meta":
            return tensor
        fill = (
            1
            if tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool
            else integer
        )
        return torch.full(tensor.shape, fill, dtype=tensor.dtype)

    return tree_map_only(Tensor, convert, value)


def run_known(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on real tensors, on the CPU whatever device was asked for."""
    args = tuple(torch.device("cpu") if isinstance(arg, torch.device) else arg for arg in args)
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if func is torch.ops.aten.rand.default:  # layers that are dropped at random must stay
        return torch.full(args[0], 0.5, dtype=kwargs.get("dtype"))
    if func is torch.ops.aten.histc.default and not args[0].is_floating_point():
        return func(args[0].float(), *args[1:], **kwargs).to(args[0].dtype)  # integers only on accelerators
    return func(*args, **kwargs)


def run_unknown(func: Callable[..., Any], name: str, args: Any, kwargs: dict[str, Any], truth: bool) -> Any:
    """Run an operation of which at least one tensor is unknown.

    Args:
        func: The operator overload.
        name: Its base name.
        args: Positional arguments, tensors mixed real and meta.
        kwargs: Keyword arguments, likewise.
        truth: Answer to booleans that nothing is known about.

    Returns:
        Meta tensors; real ones where a rule knows the values (indices that choose, tests for NaN).
    """
    if name in ANSWERS:
        return _answer(name, args, truth)
    if name in ("isnan", "isinf", "isneginf", "isposinf"):
        return torch.zeros(args[0].shape, dtype=torch.bool)
    if name == "isfinite":
        return torch.ones(args[0].shape, dtype=torch.bool)
    if name == "nms":  # no box overlaps another: comparing 90,000 equal ones would take a minute
        return torch.arange(len(args[0]))
    if name == "_grouped_mm" and args[0].dim() == 2 and args[1].dim() == 3:
        # The kernel wants rows of whole 16 bytes, which not every mixture of experts has; its shape is plain.
        return torch.empty(len(args[0]), args[1].shape[2], dtype=args[0].dtype, device="meta")
    if "device" in kwargs and kwargs["device"] is not None:
        kwargs = {**kwargs, "device": torch.device("meta")}
    try:
        result = result_on_meta(func, args, kwargs)
    except (NotImplementedError, RuntimeError) as error:
        result = _run_on_ones(func, args, kwargs, error)
    return _go_round(result, args) if name in SELECTIONS else result


def _run_on_ones(func: Callable[..., Any], args: Any, kwargs: dict[str, Any], error: Exception) -> Any:
    """Last resort for operations without a meta kernel, or whose output shape depends on values."""
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if sum(leaf.numel() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)) > MAX_ONES_NUMEL:
        raise error
    try:
        result = func(*ones_like_meta(args), **ones_like_meta(kwargs))
    except (NotImplementedError, RuntimeError, IndexError, ValueError):
        raise error from None
    return tree_map_only(
        Tensor, lambda t: to_meta(t) if t.dtype.is_floating_point or t.dtype.is_complex else t, result
    )


def _answer(name: str, args: Any, truth: bool) -> Any:
    if name in ("item", "_local_scalar_dense"):
        dtype = args[0].dtype
        return truth if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1
    return truth


def restless_answer(name: str, args: Any, count: int) -> Any:
    """Answers that go round small and large values, so that any loop that waits for another one ends."""
    if name in ("item", "_local_scalar_dense") and args[0].dtype.is_floating_point:
        return (0.0, 1.0, 1e9, -1e9)[count % 4]
    return count % 2 == 1  # which serves as an integer too


def _go_round(result: Any, args: Any) -> Any:
    """Make chosen indices run through all entries in turn, so that every expert of a mixture gets tokens."""
    source = args[0]
    dim = next((arg for arg in args[1:] if isinstance(arg, int) and not isinstance(arg, bool)), -1)
    size = source.shape[dim] if source.dim() and -source.dim() <= dim < source.dim() else source.numel()
    if isinstance(result, tuple | list) and len(result) == 2:  # topk's second argument is k, not a dimension
        choices = result[1]
        if choices.dim() == source.dim() and source.dim():
            different = [axis for axis in range(source.dim()) if choices.shape[axis] != source.shape[axis]]
            size = source.shape[different[0] if different else -1]

    def visit(indices: Tensor) -> Tensor:
        if (
            indices.dtype.is_floating_point
            or indices.dtype == torch.bool
            or indices.numel() > MAX_KNOWN_NUMEL
        ):
            return indices
        return (torch.arange(indices.numel()) % max(size, 1)).reshape(indices.shape).to(indices.dtype)

    return tree_map_only(Tensor, visit, result)
