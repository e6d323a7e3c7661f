"""What the caller's PyTorch is set to must not reach the arithmetic of a prediction."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def own_settings() -> Iterator[None]:
    """Compute in float32, and on the CPU where nothing else is said.

    Whatever autocast, default dtype or default device the caller has set comes back afterwards. As a decorator it is
    for plain functions: a generator would hand the settings to whoever reads from it.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        yield
