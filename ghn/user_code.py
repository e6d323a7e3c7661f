"""Objectives, spaces and tasks of the user's own: found by name, and named where they fail."""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from ghn.errors import ConfigError, GhnError, ModelError, did_you_mean, one_line
from ghn.models import python_zoo

Instance = TypeVar("Instance")


def find(name: str, what: str, factories: Mapping[str, Callable[..., Any]] = {}) -> Callable[..., Any]:
    """What makes an objective, a space or a task: one of the library's by its name, or what ``python_zoo.find`` takes.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name in factories:
        return factories[name]
    if ":" not in name:
        names = [*factories, "FILE.py:Name", "package.module:Name"]
        raise ConfigError(
            f"unknown {what} {name!r}; expected {' or '.join(names)}.{did_you_mean(name, factories)}"
        )
    try:
        return python_zoo.find(name)
    except ModelError as error:
        raise ConfigError(f"{what} {name!r}: {error}") from error


def make(
    factory: Callable[..., Instance], name: str, kind: type[Any], settings: Mapping[str, Any] | None = None
) -> Instance:
    """Call what ``find`` found.

    Raises:
        ConfigError: If it takes other settings, fails, or makes something else.
    """
    with blamed(name):
        instance = factory(**(settings or {}))
    if not isinstance(instance, kind):
        raise ConfigError(
            f"{name!r} makes {type(instance).__name__}; expected {kind.__module__}.{kind.__name__}"
        )
    return instance


@contextmanager
def blamed(name: str) -> Iterator[None]:
    """Wrap a call of the user's code: what it raises becomes one line that names it.

    Raises:
        ConfigError: In place of any exception that isn't one of the library's own.
    """
    try:
        yield
    except GhnError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigError(
            f"{name!r} failed at {place.filename}:{place.lineno}: {type(error).__name__}: {one_line(error)}"
        ) from error
