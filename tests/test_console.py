import sys
import warnings
from typing import Annotated

import pytest
import torch
import typer

from ghn.console import one_line_errors, run_app, spread_lists
from ghn.errors import ModelError, PredictionError


def _exit_code(error: BaseException) -> int:
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise error
    return int(caught.value.code or 0)


def test_user_errors_are_one_line_and_exit_code_2(capsys):
    assert _exit_code(ModelError("no such\nmodel")) == 2
    assert capsys.readouterr().err == "error: no such model\n"


def test_interruption_has_the_exit_code_of_shells(capsys):
    assert _exit_code(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (MemoryError(), "main"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "GPU"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
            "main",
        ),
    ],
)
def test_out_of_memory_says_what_to_reduce(capsys, error, where):
    assert _exit_code(error) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"error: out of {where} memory: choose a smaller model")
    assert text.count("\n") == 1


def test_out_of_memory_is_recognized_below_an_error_of_ours(capsys):
    error = PredictionError("failed midway")
    error.__cause__ = MemoryError()
    assert _exit_code(error) == 2
    assert capsys.readouterr().err.startswith("error: out of main memory")


def test_bugs_keep_their_traceback():
    with pytest.raises(RuntimeError, match="a bug"), one_line_errors():
        raise RuntimeError("a bug")


def test_real_allocation_failure_is_recognized():
    with pytest.raises(SystemExit), one_line_errors():
        torch.empty(2**60, dtype=torch.uint8)


def test_deprecations_that_libraries_announce_to_their_callers_stay_silent(monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", [])  # PYTHONWARNINGS is the user's wish
    app = typer.Typer()

    @app.command()
    def run() -> None:
        warnings.warn("old", FutureWarning, stacklevel=1)
        warnings.warn("look here", UserWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("default")
        run_app(app, [])
    assert [str(warning.message) for warning in heard] == ["look here"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--seeds 0 1 2 --steps 5", "--seeds 0 --seeds 1 --seeds 2 --steps 5"),
        ("--lr=1e-3 1e-2 --resume", "--lr=1e-3 --lr 1e-2 --resume"),
        ("--lr 1e-3 -1 --resume", "--lr 1e-3 --lr -1 --resume"),
        ("--seeds 0 --seeds 1", "--seeds 0 --seeds 1"),
        ("--inits=ghn --steps 5 6", "--inits=ghn --steps 5 6"),
    ],
)
def test_lists_are_spread(given, expected):
    app = typer.Typer()

    @app.command()
    def command(
        seeds: Annotated[list[int], typer.Option(metavar="N …")],
        lr: Annotated[list[float], typer.Option(metavar="RATE …")],
        inits: Annotated[list[str], typer.Option(metavar="ARM …")],
        steps: Annotated[int, typer.Option(metavar="N")] = 1,
    ) -> None: ...

    assert spread_lists(given.split(), app) == expected.split()
