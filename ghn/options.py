"""Options of a command line derived from configuration classes, instead of written again."""

import ast
import inspect
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, fields
from itertools import pairwise
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

from ghn.console import SEVERAL

Command = TypeVar("Command", bound=Callable[..., Any])

_METAVARS: dict[type, str] = {str: "NAME", int: "N", float: "X"}


def default_of(entry: Field[Any]) -> Any:
    """Value of a dataclass's field that nobody gives."""
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def with_options(
    *kinds: type[Any],
    without: Collection[str] = (),
    flags: Mapping[str, str] = {},
    metavars: Mapping[str, str] = {},
) -> Callable[[Command], Command]:
    """Decorate a command that takes ``**options``: each field of some dataclasses becomes an option of that name.

    ``given_options`` reads them. The line below a field is its help; what it says of a default of None ends there, any
    other default is added.

    Args:
        kinds: Each field has a default and a line below it; a field of several is one option.
        without: Fields that get no option.
        flags: Names of options that differ from their fields', without dashes, by field.
        metavars: How ``--help`` calls values, by field; by their type where there is none.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        own = list(signature.parameters.values())[:-1]
        parameters: dict[str, inspect.Parameter] = {}
        for kind in kinds:
            hints, lines = get_type_hints(kind), _lines_below(kind)
            for entry in fields(kind):
                name = entry.name
                if name not in {*without, *parameters}:
                    flag, metavar = flags.get(name, name), metavars.get(name)
                    parameters[name] = _option(entry, hints[name], lines[name], flag, metavar)
        command.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *parameters.values()]
        )
        return command

    return decorate


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the options of ``with_options`` that were given, lists as tuples."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in options.items()
        if value is not None and value != []
    }


def _option(entry: Field[Any], hint: Any, text: str, flag: str, metavar: str | None) -> inspect.Parameter:
    default, kind, several = default_of(entry), _value_type(hint), get_origin(hint) is tuple
    flag = "--" + flag.replace("_", "-")
    if kind is bool:
        both = f"{flag}/--no-{flag[2:]}"
        text = f"{text}  \\[default: {flag[2:]}]" if default else text
        option = typer.Option(both if default else flag, help=text, show_default=False)
        annotation: Any = bool | None
    else:
        json_value = kind is dict
        metavar = metavar or ("JSON" if json_value else _METAVARS[kind] + (SEVERAL if several else ""))
        if default is not None:
            value = " ".join(map(str, default)) if several else str(default)
            text = f"{text}  \\[default: {value or 'none'}]"  # a backslash, or rich takes it for a tag
        option = typer.Option(flag, metavar=metavar, help=text, show_default=False)
        annotation = (list[kind] if several else str if json_value else kind) | None  # type: ignore[valid-type]
    return inspect.Parameter(
        entry.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, option]
    )


def _value_type(hint: Any) -> Any:
    """Type of a field's value or, of a list, of its entries; ``dict`` for a mapping, which is given as JSON."""
    if get_origin(hint) in (types.UnionType, tuple):
        return _value_type(get_args(hint)[0])
    return dict if get_origin(hint) is Mapping else hint


def _lines_below(kind: type[Any]) -> dict[str, str]:
    """The docstring of each field of a dataclass, which only its source has."""
    docstrings = {}
    for base in reversed(kind.__mro__[:-1]):
        (tree,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(tree, ast.ClassDef)
        for entry, below in pairwise(tree.body):
            if isinstance(entry, ast.AnnAssign):
                assert isinstance(entry.target, ast.Name)
                assert isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                docstrings[entry.target.id] = " ".join(str(below.value.value).replace("``", "").split())
    return docstrings
