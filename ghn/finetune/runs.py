"""Runs by arm, seed and rate: found in a folder, or made and kept there."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ghn.finetune.progress import step_bar
from ghn.finetune.run import Run
from ghn.finetune.run_folder import Key, RunFolder

Make = Callable[[str, int, float, Callable[[], None]], Run]
"""What makes a run of an arm, a seed and a rate, and calls something after every step."""


class Runs:
    """Runs that are made when they are asked for.

    Args:
        make: Makes a run that is missing.
        steps: Steps of a run.
        folder: Where they are kept; None in processes that keep none.
        done: Runs that are there already.
        label: For the progress bar.
        shown: Whether there is a bar.
    """

    def __init__(
        self,
        make: Make,
        steps: int,
        folder: RunFolder | None,
        runs: Mapping[Key, Run],
        label: str = "",
        shown: bool = True,
    ) -> None:
        self._make, self._steps, self._folder, self._runs = make, steps, folder, dict(runs)
        self._label, self._shown = label, shown

    def get(self, keys: Sequence[Key]) -> list[Run]:
        """The runs of some keys; those that are missing are made in this order."""
        missing = [key for key in keys if key not in self._runs]
        with step_bar(len(missing) * self._steps, self._shown) as advance:
            for init, seed, lr in missing:
                label = f"{self._label}{init}, seed {seed}, lr {lr:g}"
                run = self._make(init, seed, lr, partial(advance, label))
                self._runs[init, seed, lr] = run
                if self._folder:
                    self._folder.save(run)
        return [self._runs[key] for key in keys]
