"""One run of a comparison: an arm, a seed and a learning rate, with its curve."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class Point:
    """One evaluation."""

    step: int
    loss: float
    """The task's mean loss: cross-entropy in nats, per image or token, unless it has its own."""
    metric: float
    """The task's: accuracy, or negative bits per byte, unless it has its own; larger is better."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm, seed and learning rate."""

    init: str
    seed: int
    lr: float
    init_seconds: float
    """Time that the arm took to change the model."""
    train_seconds: float
    """Time of the optimizer steps, without evaluations."""
    peak_bytes: int
    """Most memory in use in initialization and training: see ``ghn.finetune.memory``."""
    curve: tuple[Point, ...]
    note: str = ""
    """What the arm changed."""
    commit: str = ""
    """Commit of the library that ran it; see ``ghn.environment.commit``."""
    error: str = ""
    """Why the run stopped early; empty if it didn't."""

    @property
    def final(self) -> Point | None:
        """The last evaluation; None if the run stopped early."""
        return None if self.error else self.curve[-1]

    def to_dict(self) -> dict[str, Any]:
        """The run as ``results.json`` has it; the final figures of one that stopped early are None."""
        final = {key: getattr(self.final, key, None) for key in ("loss", "metric")}
        values = {**asdict(self), "curve": [asdict(point) for point in self.curve], "final": final}
        return {key: value for key, value in values.items() if value != ""}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Run":
        """Inverse of ``to_dict``."""
        fields = {key: value for key, value in values.items() if key not in ("curve", "final")}
        return cls(curve=tuple(Point(**point) for point in values["curve"]), **fields)


def best_runs(runs: Sequence[Run], init: str) -> list[Run]:
    """All seeds of an arm at its best learning rate; the first of equally good ones."""
    rates = dict.fromkeys(run.lr for run in runs if run.init == init)
    by_rate = {rate: [run for run in runs if run.init == init and run.lr == rate] for rate in rates}

    def quality(rate: float) -> tuple[int, float]:
        metrics = [run.final.metric for run in by_rate[rate] if run.final]
        return len(metrics) - len(by_rate[rate]), fmean(metrics) if metrics else -math.inf

    return by_rate[max(by_rate, key=quality)]
