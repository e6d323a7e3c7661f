"""How far meta-training is, on a terminal or in a log file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ghn.console import counted, progress_bar
from ghn.metatrain.loop import Progress as OnUpdate

_LINES = 100
"""In a log file, over a whole run."""


@contextmanager
def update_bar(total: int) -> Iterator[OnUpdate]:
    """A bar over all updates with the time that is left, on stderr; lines now and then where that is no terminal.

    At the end it says if updates are left to do. Only the first of several processes shows anything.

    Yields:
        What ``metatrain`` calls after each update. Targets and updates lost to losses that were not finite are counted.
    """
    lost = {"skipped": 0, "dropped": 0}
    reached = total
    with progress_bar(*counted("updates"), shown=first_process(), transient=False) as bar:
        task = bar.add_task("preparing", total=total)

        def show(done: int, row: dict[str, float]) -> None:
            nonlocal reached
            reached = done
            for name in lost:
                lost[name] += int(row[name])
            text = f"loss {row['loss']:.4f}, targets {row['first_loss']:.2f} → {row['last_loss']:.2f}"
            if any(lost.values()):
                text += f", not finite: {lost['skipped']} targets, {lost['dropped']} updates"
            bar.update(task, completed=done, description=text)
            if not bar.console.is_terminal and (done % max(1, total // _LINES) == 0 or done == total):
                bar.console.print(f"{done}/{total}: {text}", highlight=False)

        yield show
        if reached < total:
            bar.console.print(f"{reached} of {total} updates are done; run again to go on", highlight=False)


def first_process() -> bool:
    """Whether this is the first, or the only, process of a launch by ``accelerate`` or ``torchrun``."""
    return os.environ.get("RANK", "0") == "0"
