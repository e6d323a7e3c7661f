"""What an evaluation says: means and errors of each model, paired tests, and counts over all models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from scipy import stats

from ghn.evaluate.run import Outcome
from ghn.finetune.results import Run, sem, summarize

SHARES = (0.1, 0.3, 1.0)
"""Of the budget, at which metrics are reported."""

SIGNIFICANT = 0.05

ROUNDING = 1e-9
"""Deviation below which differences are equal: they are multiples of one by the number of examples."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm of one case."""

    model: str
    spec: str
    family: str
    parameters: int
    dataset: str
    transfer: bool
    arm: str
    lr: float
    seeds: int
    metric_10: float | None
    """Mean over the seeds after a tenth of the budget; null if a run diverged."""
    sem_10: float | None
    metric_30: float | None
    sem_30: float | None
    metric_100: float | None
    sem_100: float | None
    difference: float | None
    """Of the final metric to that of 'random', mean over the seeds."""
    difference_sem: float | None
    p_value: float | None
    """Of a paired t-test over the seeds that the difference is 0."""
    commit: str
    """Of the library that ran it, several with commas; empty in runs that did not keep it."""
    steps: int
    """Of the budget."""
    steps_to_random_final: int | None
    """First evaluated step at which the mean metric reaches random's final one."""
    init_seconds: float
    train_seconds: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One arm against another over all models of a kind."""

    dataset: str
    arm: str
    against: str
    share: float
    """Of the budget."""
    models: int
    wins: int
    """Models with the higher mean metric, or where the other arm alone diverged; equal ones are neither."""
    losses: int
    significant_wins: int
    """With a paired t-test over the seeds below 0.05."""
    significant_losses: int
    diverged: int
    """Models on which either arm diverged: no part of the next three."""
    mean_difference: float
    sem_difference: float | None
    p_value: float | None
    """Wilcoxon's signed-rank test over the models' mean differences, which leaves out those of 0."""
    median_steps_share: float | None
    """Against 'random' and at the end alone: median over the models of ``steps_to_random_final`` as a share of the
    budget, never reached as 1, without models on which random diverged."""


def rows(outcome: Outcome) -> list[Row]:
    """A row for each arm of a case."""
    every = [run for runs in outcome.tuned.values() for run in runs]
    summary, budget = summarize(every), max((run.curve[-1].step for run in every if run.curve), default=0)
    found = []
    for arm, runs in outcome.tuned.items():
        figures: dict[str, float | None] = {}
        for share in SHARES:
            values = at_share(runs, share)
            percent = round(100 * share)
            figures[f"metric_{percent}"] = fmean(values) if values else None
            figures[f"sem_{percent}"] = sem(values)
        differences = paired_differences(outcome, arm, "random", 1.0)
        found.append(
            Row(
                model=outcome.case.name,
                spec=outcome.case.architecture.spec,
                family=outcome.case.architecture.family,
                parameters=outcome.parameters,
                dataset=outcome.case.data,
                transfer=outcome.case.transfer,
                arm=arm,
                lr=runs[0].lr,
                seeds=len(runs),
                difference=fmean(differences) if differences else None,
                difference_sem=sem(differences),
                p_value=t_test(differences),
                commit=",".join(dict.fromkeys(run.commit for run in runs if run.commit)),
                steps=budget,
                steps_to_random_final=summary[arm]["steps_to_random_final"],
                init_seconds=fmean(run.init_seconds for run in runs),
                train_seconds=fmean(run.train_seconds for run in runs),
                **figures,
            )
        )
    return found


def verdicts(outcomes: Sequence[Outcome], pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """Count over the models of each data set, for every pair (arm, against) and share of the budget."""
    found = []
    for dataset in dict.fromkeys(outcome.case.data for outcome in outcomes):
        for arm, against in pairs:
            both = [
                outcome
                for outcome in outcomes
                if outcome.case.data == dataset and {arm, against} <= outcome.tuned.keys()
            ]
            if both:
                found += [_verdict(both, dataset, arm, against, share) for share in SHARES]
    return found


def _verdict(outcomes: Sequence[Outcome], dataset: str, arm: str, against: str, share: float) -> Verdict:
    by_model = [paired_differences(outcome, arm, against, share) for outcome in outcomes]
    # A model on which one of the two diverged is decided, but by no finite difference.
    decided = [_diverged(outcome, against) - _diverged(outcome, arm) for outcome in outcomes]
    means = [fmean(values) if values else float(sign) for values, sign in zip(by_model, decided, strict=True)]
    finite = [fmean(values) for values in by_model if values]
    significant = [fmean(values) for values in by_model if is_significant(t_test(values))]
    reached = [
        _share_to_random(outcome, arm)
        for outcome in outcomes
        if share == 1.0 and against == "random" and not _diverged(outcome, "random")
    ]
    return Verdict(
        dataset=dataset,
        arm=arm,
        against=against,
        share=share,
        models=len(outcomes),
        wins=sum(value > 0 for value in means),
        losses=sum(value < 0 for value in means),
        significant_wins=sum(value > 0 for value in significant),
        significant_losses=sum(value < 0 for value in significant),
        diverged=len(outcomes) - len(finite),
        mean_difference=fmean(finite) if finite else math.nan,
        sem_difference=sem(finite),
        p_value=float(stats.wilcoxon(finite).pvalue) if any(finite) else None,
        median_steps_share=median(reached) if reached else None,
    )


def at_share(runs: Sequence[Run], share: float) -> list[float]:
    """Each run's metric at its first evaluation after a share of the budget; nothing if one of them diverged."""
    if any(run.final is None for run in runs):
        return []
    last = max(point.step for run in runs for point in run.curve)
    goal = round(share * last)
    return [next(point.metric for point in run.curve if point.step >= goal) for run in runs]


def paired_differences(outcome: Outcome, arm: str, against: str, share: float) -> list[float]:
    """Metric of one arm minus that of another, seed by seed; nothing if one of them diverged."""
    ours, theirs = at_share(outcome.tuned[arm], share), at_share(outcome.tuned[against], share)
    return [a - b for a, b in zip(ours, theirs, strict=True)] if ours and theirs else []


def t_test(differences: Sequence[float]) -> float | None:
    """Two-sided p-value that paired differences have mean 0; None for fewer than two, or if they are all equal."""
    if len(differences) < 2 or stdev(differences) < ROUNDING:
        return None
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def is_significant(p_value: float | None) -> bool:
    """Whether a test was possible, and its p-value is below ``SIGNIFICANT``."""
    return p_value is not None and p_value < SIGNIFICANT


def _diverged(outcome: Outcome, arm: str) -> bool:
    return any(run.final is None for run in outcome.tuned[arm])


def _share_to_random(outcome: Outcome, arm: str) -> float:
    row = next(row for row in rows(outcome) if row.arm == arm)
    return 1.0 if row.steps_to_random_final is None else row.steps_to_random_final / row.steps
