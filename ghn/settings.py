"""What the caller's process is set to, and what must neither reach a prediction nor be changed by it."""

import gc
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn


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


@contextmanager
def modes_restored(model: nn.Module) -> Iterator[None]:
    """Put every module of a model back into training or evaluation mode afterwards, as it was."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def paused_collection() -> Iterator[None]:
    """A record is many small objects and hardly any garbage: searching it over and over takes a sixth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
