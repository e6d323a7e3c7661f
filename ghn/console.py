"""What commands and scripts share: how they end after an error, read JSON options, and show that they work."""

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ghn.errors import ConfigError, GhnError

if TYPE_CHECKING:  # rich takes a while to import, and most commands show no progress
    from rich.progress import Progress, ProgressColumn

USER_ERROR = 2
"""Exit code of a mistake that the user can mend; argument parsers end with it too."""
INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

SEVERAL = " …"
"""End of the metavar of an option that takes several values, as ``--seeds 0 1 2`` or ``--seeds 0 --seeds 1``."""

_CPU_MEMORY = re.compile(r"DefaultCPUAllocator|can't allocate memory|not enough memory", re.IGNORECASE)


def run_app(app: typer.Typer, arguments: Sequence[str]) -> None:
    """Run a command line; what the user can mend, options included, becomes one line on stderr and exit code 2.

    Raises:
        SystemExit: With the exit code, if that isn't 0.
    """
    if not sys.warnoptions:  # libraries' advice to those who call them, which our users can't follow
        warnings.filterwarnings("ignore", category=FutureWarning)
    with one_line_errors():
        try:
            code = app(args=spread_lists(arguments, app), standalone_mode=False)
        except typer.TyperException as error:
            raise ConfigError(f"{error.format_message().rstrip('.')}; --help lists all options") from error
        except typer.Abort as error:  # which typer makes of Ctrl-C
            raise KeyboardInterrupt from error
    if code:
        raise SystemExit(code)


def run_command(command: Callable[..., None], arguments: Sequence[str]) -> None:
    """Run one command as a program of its own: see ``run_app``."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app, arguments)


def spread_lists(arguments: Sequence[str], app: typer.Typer) -> list[str]:
    """Rewrite ``--seeds 0 1 2`` as ``--seeds 0 --seeds 1 --seeds 2``, which is what typer reads.

    A list ends at the next option; negative numbers are values.
    """
    command: Any = typer.main.get_command(app)
    if arguments:
        command = getattr(command, "commands", {}).get(arguments[0], command)
    lists = {
        flag
        for parameter in command.params
        if (parameter.metavar or "").endswith(SEVERAL)
        for flag in parameter.opts
    }
    found: list[str] = []
    option = None
    first = True
    for argument in arguments:
        if argument.startswith("-") and not _is_number(argument):
            name, given, _ = argument.partition("=")
            option, first = (name if name in lists else None), not given
            found.append(argument)
        elif option is None or first:
            found.append(argument)
            first = False
        else:
            found += [option, argument]
    return found


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Wrap the body of a ``main``: what the user can mend becomes one line on stderr and exit code 2.

    Errors of ``ghn.errors`` and running out of memory (of a GPU or the machine) are such; Ctrl-C exits with 130. All
    other exceptions are bugs and keep their traceback.

    Raises:
        SystemExit: In place of those exceptions.
    """
    try:
        yield
    except GhnError as error:
        _exit(_out_of_memory(error.__cause__) or str(error), USER_ERROR, error)
    except KeyboardInterrupt as error:
        _exit("interrupted", INTERRUPTED, error)
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        message = _out_of_memory(error)
        if not message:
            raise
        _exit(message, USER_ERROR, error)


def json_object(text: str | None, option: str) -> dict[str, Any]:
    """Read the value of an option that takes a JSON object, such as ``--model-kwargs``; None is an empty one.

    Raises:
        ConfigError: If it isn't one; shows the right form.
    """
    try:
        value = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{option} {text} is not JSON ({error.msg}, column {error.colno}); write it like "
            f"""{option} '{{"num_classes": 10}}', with double quotes inside single ones"""
        ) from error
    if not isinstance(value, dict):
        raise ConfigError(
            f"""{option} {text} is {type(value).__name__}; expected names with values: '{{"num_classes": 10}}'"""
        )
    return value


def settings_object(given: str | None) -> dict[str, Any]:
    """Read the value of ``--settings``: a JSON object, or the name of a file that holds one.

    Raises:
        ConfigError: If it isn't one, or there is no such file.
    """
    if given is None or given.lstrip().startswith("{"):
        return json_object(given, "--settings")
    try:
        return json_object(Path(given).read_text(), "--settings")
    except OSError as error:
        raise ConfigError(
            f"--settings: {given} can't be read ({error}); pass a file or a JSON object"
        ) from error


@contextmanager
def progress_bar(
    *columns: "ProgressColumn", shown: bool = True, transient: bool = True
) -> Iterator["Progress"]:
    """Show a description and columns of rich while the body runs, on stderr, if that is a terminal.

    Args:
        columns: Right of the description.
        shown: False shows nothing anywhere.
        transient: Whether the bar goes when it is done.
    """
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        *columns,
        console=console,
        transient=transient,
        disable=not (shown and console.is_terminal),
    ) as bar:
        yield bar


def counted(unit: str) -> tuple["ProgressColumn", ...]:
    """Columns of ``progress_bar`` for work that is counted: how much of it is done, and the time that is left."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    return BarColumn(), MofNCompleteColumn(), TextColumn(f"{unit}, left:"), TimeRemainingColumn()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner with the seconds while the body runs."""
    from rich.progress import SpinnerColumn, TimeElapsedColumn

    with progress_bar(SpinnerColumn(), TimeElapsedColumn()) as bar:
        bar.add_task(what, total=None)
        yield


@contextmanager
def bytes_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many bytes are written, how fast, and the time that is left.

    Gives a function that takes the number of bytes done and of all bytes.
    """
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with progress_bar(*columns) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _out_of_memory(error: BaseException | None) -> str:
    """What to reduce, if memory ran out; empty if the error is another one."""
    torch = sys.modules.get("torch")  # whoever raised its error has imported it; we must stay quick
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        where = "GPU"
    elif isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _CPU_MEMORY.search(str(error))
    ):
        where = "main"
    else:
        return ""
    return (
        f"out of {where} memory: choose a smaller model, --batch-size, --image-size or --sequence-length, "
        "a --dtype or --precision of 16 bits, or another --device, as far as the command has them"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _exit(message: str, code: int, error: BaseException) -> None:
    print("error:", " ".join(message.split()), file=sys.stderr)
    raise SystemExit(code) from error
