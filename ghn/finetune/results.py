"""What a comparison finds: runs with their curves, and each arm's summary at its own best learning rate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

SCHEMA = 1
"""Version of ``results.json``; keys may be added without a new one."""


@dataclass(frozen=True)
class Point:
    """One evaluation."""

    step: int
    loss: float
    """Mean cross-entropy in nats: per image, or per token."""
    metric: float
    """Accuracy, or negative bits per byte."""


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
    """Of the library that ran it; see ``ghn.environment.commit``."""
    error: str = ""
    """Why the run stopped early; empty if it didn't."""

    @property
    def final(self) -> Point | None:
        """The last evaluation; None if the run stopped early."""
        return None if self.error else self.curve[-1]

    def to_dict(self) -> dict[str, Any]:
        """As in ``results.json``; the final figures of a run that stopped early are null."""
        final = {key: getattr(self.final, key, None) for key in ("loss", "metric")}
        values = {**asdict(self), "curve": [asdict(point) for point in self.curve], "final": final}
        return {key: value for key, value in values.items() if value != ""}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Run":
        """Inverse of ``to_dict``."""
        fields = {key: value for key, value in values.items() if key not in ("curve", "final")}
        return cls(curve=tuple(Point(**point) for point in values["curve"]), **fields)


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole comparison; ``to_dict`` is the content of ``results.json``."""

    task: str
    metric_name: str
    model: str
    model_kwargs: dict[str, Any]
    """As given by the user."""
    model_arguments: dict[str, Any]
    """All that the model was constructed with: also what data set and task imply."""
    parameters: int
    dataset: str
    budget: dict[str, int]
    config: dict[str, Any]
    """As given by the user; None where a default depends on the rest."""
    settings: dict[str, Any]
    """The configuration that ran: every default filled in, and what doesn't apply left out."""
    runs: tuple[Run, ...]
    provenance: dict[str, Any]
    output_dir: str = ""
    """Folder that the results were written to."""

    @property
    def inits(self) -> list[str]:
        """Arms, in the order that they were asked for."""
        return list(dict.fromkeys(run.init for run in self.runs))

    def summary(self) -> dict[str, dict[str, Any]]:
        """See ``summarize``."""
        return summarize(self.runs)

    def to_dict(self) -> dict[str, Any]:
        """As in ``results.json``."""
        return {
            "schema": SCHEMA,
            "task": self.task,
            "model": self.model,
            "model_kwargs": self.model_kwargs,
            "parameters": self.parameters,
            "dataset": self.dataset,
            "budget": self.budget,
            "runs": [run.to_dict() for run in self.runs],
            "summary": self.summary(),
            "provenance": self.provenance,
            "metric": self.metric_name,
            "model_arguments": self.model_arguments,
            "config": self.config,
            "settings": self.settings,
        }


def summarize(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Each arm at the learning rate of its best mean final metric.

    A rate at which a run stopped early is worse than all at which none did; an arm without any such rate has null
    figures. The standard error of one seed is null. ``steps_to_random_final`` is the first evaluated step at which the
    arm's mean metric reaches random's final mean, null if it never does or there is no such arm.
    """
    tuned = {init: best_runs(runs, init) for init in dict.fromkeys(run.init for run in runs)}
    goal = _mean_final(tuned.get("random", []), "metric")
    return {
        init: {
            "lr": chosen[0].lr,
            "metric_mean": _mean_final(chosen, "metric"),
            "metric_sem": sem([run.final.metric for run in chosen if run.final]),
            "loss_mean": _mean_final(chosen, "loss"),
            "steps_to_random_final": _first_step(chosen, goal),
        }
        for init, chosen in tuned.items()
    }


def best_runs(runs: Sequence[Run], init: str) -> list[Run]:
    """All seeds of an arm at its best learning rate; the first of equally good ones."""
    rates = dict.fromkeys(run.lr for run in runs if run.init == init)
    by_rate = {rate: [run for run in runs if run.init == init and run.lr == rate] for rate in rates}

    def quality(rate: float) -> tuple[int, float]:
        finished = [run.final.metric for run in by_rate[rate] if run.final]
        return len(finished) - len(by_rate[rate]), fmean(finished) if finished else -math.inf

    return by_rate[max(by_rate, key=quality)]


def mean_curve(runs: Sequence[Run], quantity: str) -> list[tuple[int, float, float]]:
    """Step, mean and standard error (0 for one run) over the runs that were evaluated there."""
    steps = sorted({point.step for run in runs for point in run.curve})
    curve = []
    for step in steps:
        values = [getattr(point, quantity) for run in runs for point in run.curve if point.step == step]
        curve.append((step, fmean(values), sem(values) or 0.0))
    return curve


def _mean_final(runs: Sequence[Run], quantity: str) -> float | None:
    finals = [getattr(run.final, quantity) for run in runs if run.final]
    return fmean(finals) if finals and len(finals) == len(runs) else None


def sem(values: Sequence[float]) -> float | None:
    """Standard error of the mean; None for fewer than two values."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _first_step(runs: Sequence[Run], goal: float | None) -> int | None:
    if goal is None or any(run.error for run in runs):
        return None
    # Means are of the same numbers in the same order, so random reaches its own final mean exactly.
    return next((step for step, metric, _ in mean_curve(runs, "metric") if metric >= goal), None)
