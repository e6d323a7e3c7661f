"""How far meta-training is, on a terminal or in a log file."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ghn.console import counted, progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_LINES = 100
"""In a log file, over a whole run."""


class Progress:
    """What a run tells on its way; this one says nothing."""

    def note(self, text: str) -> None:
        """Told once in a while."""

    def row(self, row: Mapping[str, Any]) -> None:
        """A row of the log, of an update or a validation."""


class ProgressBar(Progress):
    """A bar over all updates with the time that is left, on stderr; lines now and then where that is no terminal."""

    def __init__(self, bar: "RichProgress", total: int) -> None:
        self._bar, self._total = bar, total
        self._task: TaskID = bar.add_task("preparing", total=total)
        self._losses: dict[str, float] = {}
        self._lost = 0
        self.done = total

    def note(self, text: str) -> None:
        """See ``Progress.note``."""
        self._bar.console.print(text, highlight=False, soft_wrap=True)

    def row(self, row: Mapping[str, Any]) -> None:
        """See ``Progress.row``."""
        self.done = row["update"]
        if "validation" in row:
            metrics = " ".join(f"{family} {abs(metric):.3f}" for family, metric in row["validation"].items())
            self.note(f"after {row['seen'] / 1e6:.2f} M target-images: {metrics}")
            return
        losses = [loss for losses in row["loss"].values() for loss in losses]
        if losses:
            mean = sum(losses) / len(losses)
            self._losses[row["task"]] = 0.98 * self._losses.get(row["task"], mean) + 0.02 * mean
        self._lost += row["skipped"] + row["dropped"]
        text = ", ".join(f"{kind} {loss:.3f}" for kind, loss in self._losses.items())
        text = f"{row['seen'] / 1e6:.2f} M target-images, loss {text}"
        text += f", not finite: {self._lost}" if self._lost else ""
        self._bar.update(self._task, completed=self.done, description=text)
        if not self._bar.console.is_terminal and self.done % max(1, self._total // _LINES) == 0:
            self.note(f"{self.done}/{self._total}: {text}")


@contextmanager
def training_progress(total: int) -> Iterator[Progress]:
    """Show a bar while the body runs; at the end it says if updates are left to do.

    Only the first of several processes shows anything.
    """
    if not first_process():
        yield Progress()
        return
    with progress_bar(*counted("updates"), transient=False) as bar:
        progress = ProgressBar(bar, total)
        yield progress
        if progress.done < total:
            progress.note(f"{progress.done} of {total} updates are done; run again to go on")


def first_process() -> bool:
    """Whether this is the first, or the only, process of a launch by ``torchrun``."""
    return os.environ.get("RANK", "0") == "0"
