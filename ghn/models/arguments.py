"""Turn what a factory says about its arguments into one line that helps."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ghn.errors import ModelError, did_you_mean


def call_factory(
    factory: Callable[..., Any],
    name: str,
    kwargs: Mapping[str, Any],
    takes: Callable[..., Any] | None = None,
    **own: Any,
) -> nn.Module:
    """Call ``factory(**kwargs, **own)``.

    Args:
        factory: What builds the model.
        name: How messages call it.
        kwargs: The user's arguments.
        takes: Whose signature and module know the argument names; the factory's own by default.
        **own: Our arguments.

    Raises:
        ModelError: If an argument is unknown (with close ones), a value doesn't fit, or the result is no module.
    """
    try:
        model = factory(**kwargs, **own)
    except TypeError as error:
        raise ModelError(_explain(error, takes or factory, name, kwargs)) from error
    except (ValueError, RuntimeError, AssertionError, LookupError, AttributeError, ImportError) as error:
        arguments = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        raise ModelError(
            f"{name!r} can't be built with {arguments or 'its defaults'}: {one_line(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name!r} returned {type(model).__name__}; expected a torch.nn.Module")
    return model


def one_line(error: Exception) -> str:
    """Kind and text of an error without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _explain(error: TypeError, factory: Callable[..., Any], name: str, kwargs: Mapping[str, Any]) -> str:
    match = re.search(r"([\w.]+)\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if match is None or match[2] not in kwargs:
        return f"{name!r} can't be built: {one_line(error)}"
    callee, bad = match.groups()
    # The factory often hands **kwargs on to the class that complains: its signature has the names.
    owner = inspect.getmodule(inspect.unwrap(factory))
    target = getattr(owner, callee.partition(".")[0], factory)
    names = {*inspect.signature(factory).parameters, *inspect.signature(target).parameters}
    names -= {"self", "args", "kwargs", bad}
    return f"{name!r} takes no argument {bad!r}.{did_you_mean(bad, names) or f' It takes {sorted(names)}'}"
