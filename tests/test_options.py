"""Options of a command that are derived from dataclasses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import typer

from ghn.console import run_app
from ghn.options import given_options, with_options


@dataclass(frozen=True, kw_only=True)
class Size:
    width: int = 4
    """Channels of a layer,
    in all."""
    depth: int | None = None
    """Layers; as many as fit by default."""


@dataclass(frozen=True, kw_only=True)
class Settings(Size):
    names: tuple[str, ...] = ("a", "b")
    """Of the layers."""
    rates: tuple[float, ...] = ()
    """Of the ``names``."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Arguments."""
    bias: bool = True
    """Whether to add one."""
    quiet: bool = False
    """Whether to say nothing."""
    hidden: float = 0.5
    """Not an option."""


@pytest.fixture
def command() -> tuple[typer.Typer, list[tuple[str, dict[str, Any]]]]:
    """A command, and what it was called with."""
    app, calls = typer.Typer(add_completion=False), []

    @app.command()
    @with_options(
        Size, Settings, without={"hidden"}, flags={"width": "channels"}, metavars={"depth": "LAYERS"}
    )
    def command(first: str, **options: Any) -> None:
        calls.append((first, given_options(options)))

    return app, calls


def test_fields_become_options(command) -> None:
    app, calls = command
    run_app(app, ["x"])
    run_app(app, ["x", "--channels", "3", "--names", "c", "d", "--no-bias", "--rates", "1", "--more", "{}"])
    run_app(app, ["x", "--quiet", "--depth", "2"])
    assert calls == [
        ("x", {}),
        ("x", {"width": 3, "names": ("c", "d"), "bias": False, "rates": (1.0,), "more": "{}"}),
        ("x", {"quiet": True, "depth": 2}),
    ]
    with pytest.raises(SystemExit):
        run_app(app, ["x", "--hidden", "1"])


def test_help_has_the_lines_below_fields_and_defaults(command, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    run_app(command[0], ["--help"])
    lines = [" ".join(line.strip("│ ").split()) for line in capsys.readouterr().out.splitlines()]
    expected = [
        "--channels N Channels of a layer, in all. [default: 4]",
        "--depth LAYERS Layers; as many as fit by default.",
        "--names NAME … Of the layers. [default: a b]",
        "--rates X … Of the names. [default: none]",
        "--more JSON Arguments. [default: {}]",
        "--bias --no-bias <bool> Whether to add one. [default: bias]",
        "--quiet <bool> Whether to say nothing.",
    ]
    assert [line for line in lines if line.startswith("--") and "--help" not in line] == expected
