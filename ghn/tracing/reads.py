"""Reads and writes of tensors that never reach the dispatcher, answered while a model runs on shapes alone."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ghn.errors import TraceError
from ghn.tracing import values
from ghn.tracing.recorder import Recorder

CPU = torch.device("cpu")

VALUES = frozenset({Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__repr__, Tensor.__format__})
"""What turns a tensor into something else; unknown ones are full of ones, as ``item`` answers."""

_tensor: Any = Tensor

PLACES = {
    _tensor.device.__get__: CPU,
    _tensor.is_cpu.__get__: True,
    _tensor.is_cuda.__get__: False,
    _tensor.is_meta.__get__: False,
    Tensor.get_device: -1,
}
"""Where every tensor is, whatever device its values are on: a graph must not depend on that, and models compare."""

GET_DATA, SET_DATA = _tensor.data.__get__, _tensor.data.__set__


class HonestReads(TorchFunctionMode):
    """Answers as a model on the CPU would: values, devices, ``data``, and gradients by shape."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in PLACES:
            return PLACES[func]
        if func is Tensor.type and len(args) == 1 and not kwargs:
            return torch.empty(0, dtype=args[0].dtype).type()
        if func in VALUES and args and isinstance(args[0], Tensor) and args[0].device.type == "meta":
            args = (values.ones_like_meta(args[0], integer=1), *args[1:])
        elif func == SET_DATA:
            return self._recorder.set_data(*args)
        elif func is torch.autograd.grad:
            outputs, inputs = (*args, *(kwargs or {}).values())[:2]
            return self._recorder.gradient(outputs, inputs)
        elif func is F.scaled_dot_product_attention and args and args[0].is_nested:
            return self._recorder.attention(*args[:3])  # which asks for kernels and lengths in Python
        elif func is Tensor.backward or func is torch.autograd.backward:
            raise TraceError(
                "its forward calls backward(), and a run on shapes alone has no gradients to store"
            )
        result = func(*args, **(kwargs or {}))
        if func == GET_DATA:
            self._recorder.note_alias(result, args[0])
        return result
