"""What a tensor is to one process, whole or a part, with a storage or without; and which one holds predictions."""

import sys
from typing import Any, cast

import torch
from torch import Tensor, nn

from ghn.errors import DataError


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


def has_storage(tensor: Tensor) -> bool:
    """Whether a tensor has one plain storage (sparse, nested and distributed ones have not)."""
    return tensor.layout == torch.strided and not tensor.is_nested and not is_distributed(tensor)


def storage_key(tensor: Tensor) -> int:
    """Identity of a tensor's storage, shared by its views; of the tensor itself where it has none."""
    return tensor.untyped_storage()._cdata if has_storage(tensor) else -id(tensor)


def count_parameters(model: nn.Module) -> int:
    """Numbers in a model's parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def logits_of(output: Any) -> Tensor:
    """Predictions in what a network returns; of several heads (auxiliary, distillation) those of the first.

    Raises:
        DataError: If there is no tensor in it.
    """
    value = getattr(output, "logits", output)
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    if not isinstance(value, Tensor):
        raise DataError(
            f"the model returns {type(output).__name__}; expected a tensor of logits, or .logits: choose an image "
            "classifier or a causal language model"
        )
    return value
