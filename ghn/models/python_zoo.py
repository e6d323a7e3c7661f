"""Models of your own: a factory in an importable module or in a file."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ghn.errors import ModelError, did_you_mean
from ghn.models.arguments import call_factory, one_line


def names() -> list[str]:
    """Nothing: everything importable is a candidate."""
    return []


def build(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """Call the factory that ``find`` finds."""
    return call_factory(find(name), name, kwargs)


def find(name: str) -> Callable[..., Any]:
    """Import what ``package.module:factory`` or ``path/to/file.py:factory`` names.

    Raises:
        ModelError: If there is no such file, module or callable.
    """
    where, colon, attribute = name.rpartition(":")
    if not colon or not where or not attribute:
        raise ModelError(
            f"'python:{name}' names no factory; write python:package.module:factory or python:FILE.py:factory"
        )
    return _factory(_import(where), attribute, where)


def call_for_inputs(name: str) -> Any:
    """Example inputs that the function which ``find`` finds returns.

    Raises:
        ModelError: If there is no such function, or it fails.
    """
    try:
        return find(name)()
    except ModelError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise ModelError(f"{name!r} can't make example inputs: {one_line(error)}") from error


def example_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Nobody knows what your model takes.

    Raises:
        ModelError: Always.
    """
    raise ModelError(
        f"Can't guess what {type(model).__name__} takes, a model of no known zoo; "
        "pass inputs=… (a tensor, a tuple of positional or a dict of keyword arguments of its forward)"
    )


def _import(where: str) -> ModuleType:
    path = Path(where)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise ModelError(f"There is no file {where!r}; expected the Python file that holds the factory")
    try:
        with _importable_from(path.parent.resolve() if is_file else Path.cwd()):
            return _import_file(path) if is_file else importlib.import_module(where)
    except ImportError as error:
        raise ModelError(f"Can't import {where!r} ({error}); expected a module or a FILE.py") from error
    except SyntaxError as error:
        raise ModelError(f"Can't import {where!r}: {one_line(error)}") from error


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{str(path)!r} is not a Python file that can be imported")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look a class's module up here; a name that is taken is left alone.
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importable_from(folder: Path) -> Iterator[None]:
    """Find neighbours of the file, or modules of the working folder, which a console script can't see."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _factory(module: ModuleType, attribute: str, where: str) -> Callable[..., Any]:
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            names = [name for name in vars(value) if not name.startswith("_")]
            raise ModelError(f"{where!r} has no {part!r}.{did_you_mean(part, names)}")
        value = getattr(value, part)
    if not callable(value):
        raise ModelError(f"'{where}:{attribute}' is {type(value).__name__}; expected a class or function")
    return value
