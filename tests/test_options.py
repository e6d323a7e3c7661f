"""Options of a command that are derived from dataclasses."""

from dataclasses import dataclass
from typing import Any

import pytest
import typer

from ghn.console import run_app
from ghn.options import with_options


@dataclass(frozen=True, kw_only=True)
class Settings:
    width: int = 4
    """Channels of a layer,
    in all."""
    names: tuple[str, ...] = ("a", "b")
    """Of the layers."""
    hidden: float = 0.5
    """Not an option."""


def test_fields_become_options_with_help_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    app, calls = typer.Typer(), []

    @app.command()
    @with_options(Settings, without={"hidden"})
    def command(first: str, **options: Any) -> None:
        calls.append((first, options))

    run_app(app, ["x", "--width", "3"])
    run_app(app, ["x", "--names", "c", "--names", "d"])
    assert calls == [("x", {"width": 3, "names": None}), ("x", {"width": None, "names": ["c", "d"]})]
    (names, width) = sorted(
        parameter.help
        for parameter in typer.main.get_command(app).params
        if parameter.name in ("width", "names")
    )[::-1]
    assert width == "Channels of a layer, in all.  [default: 4]"
    assert names == "Of the layers; repeat for several.  [default: a b]"
    with pytest.raises(SystemExit):
        run_app(app, ["x", "--hidden", "1"])
