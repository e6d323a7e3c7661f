"""How far a comparison is, on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ghn.console import counted, progress_bar


@contextmanager
def step_bar(total: int, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """A bar over all steps of all runs with the time that is left, on stderr; nothing where that is no terminal.

    Yields:
        What to call after each step, with a label for the run that it was of.
    """
    with progress_bar(*counted("steps"), shown=shown) as bar:
        task = bar.add_task("preparing", total=total)
        yield lambda label: bar.update(task, advance=1, description=label)
