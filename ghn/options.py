"""Options of a command line derived from configuration classes, instead of written again."""

import ast
import inspect
import json
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields
from itertools import pairwise
from typing import Annotated, Any, TypeVar

import typer

Command = TypeVar("Command", bound=Callable[..., Any])

_TYPES: dict[type, tuple[Any, str]] = {
    str: (str | None, "NAME"),
    int: (int | None, "N"),
    float: (float | None, "X"),
    tuple: (list[str] | None, "NAME"),
    dict: (str | None, "JSON"),
}
"""What typer reads for a setting with a default of some type, and how ``--help`` calls it."""


def default_of(entry: Field[Any]) -> Any:
    """Value of a dataclass's field that nobody gives."""
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def with_options(*kinds: type[Any], without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Decorate a command that takes ``**options``: each field of some dataclasses becomes an option of that name.

    Options that are not given are None; lists are given one by one; mappings as JSON, which the command reads.

    Args:
        kinds: Each field has a default and a line below it, which is the help.
        without: Fields that get no option.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        own = list(signature.parameters.values())[:-1]
        added = [
            _option(entry, text)
            for kind in kinds
            for entry, text in zip(fields(kind), _lines_below(kind), strict=True)
            if entry.name not in without
        ]
        command.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        return command

    return decorate


def _option(entry: Field[Any], text: str) -> inspect.Parameter:
    default = default_of(entry)
    kind, metavar = _TYPES[type(default)]
    shown = json.dumps(default) if isinstance(default, dict) else str(default)
    if isinstance(default, tuple):
        shown, text = " ".join(map(str, default)), f"{text.removesuffix('.')}; repeat for several."
    text = f"{text}  [default: {shown or 'none'}]"
    option: Any = Annotated[kind, typer.Option(metavar=metavar, help=text, show_default=False)]
    return inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)


def _lines_below(kind: type[Any]) -> list[str]:
    """The docstring of each field of a dataclass, which only its source has."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    found = []
    for entry, below in pairwise(tree.body):
        if isinstance(entry, ast.AnnAssign):
            assert isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            found.append(" ".join(str(below.value.value).replace("``", "").split()))
    return found
