"""The long table of results, a row for each evaluation of each run, and what follows from it.

Its columns: ``model``, ``dataset``, ``arm``, ``seed``, ``lr``, ``step``, ``loss``, ``metric``; of the run, ``tuned``
(whether its rate is the arm's best), ``diverged``, ``init_seconds``, ``train_seconds``, ``commit``. A run without any
finite evaluation has a row without figures. Comparisons have one case, a model on a data set; evaluations have many.
"""

import math
from collections.abc import Collection, Iterable
from typing import Any

import pandas as pd

from ghn.finetune.run import Point, Run

CASE = ["model", "dataset"]

_NO_FIGURES = (Point(0, math.nan, math.nan),)


def long_table(runs: Iterable[Run], tuned: Collection[Run], **case: Any) -> pd.DataFrame:
    """The table of one case.

    Args:
        runs: Runs of all arms, seeds and rates.
        tuned: Those at their arm's best rate.
        case: Columns that are the same in all rows, ``model`` and ``dataset`` among them.
    """
    rows = [
        {
            **case,
            "arm": run.init,
            "seed": run.seed,
            "lr": run.lr,
            "step": point.step,
            "loss": point.loss,
            "metric": point.metric,
            "tuned": run in tuned,
            "diverged": bool(run.error),
            "init_seconds": run.init_seconds,
            "train_seconds": run.train_seconds,
            "commit": run.commit,
        }
        for run in runs
        for point in run.curve or _NO_FIGURES
    ]
    return pd.DataFrame(rows)


def ends(table: pd.DataFrame, share: float = 1.0, quantity: str = "metric") -> pd.DataFrame:
    """Each tuned run's figure at its first evaluation after a share of the budget.

    Returns:
        A row for each case and seed, a column for each arm; nothing where a run of the arm diverged.
    """
    tuned = table[table["tuned"]]
    goal = (share * tuned.groupby(CASE)["step"].transform("max")).round()
    diverged = tuned.groupby([*CASE, "arm"])["diverged"].transform("any")
    rows = tuned.assign(figure=tuned[quantity].where(~diverged))[tuned["step"] >= goal]
    figures = rows.groupby([*CASE, "seed", "arm"])["figure"].first().unstack("arm")
    return figures.reindex(columns=tuned["arm"].unique())


def mean_curve(table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Mean and standard error (0 for one run) of each arm's tuned runs at each step, by arm and step."""
    tuned = table[table["tuned"] & table[quantity].notna()]
    curve = tuned.groupby(["arm", "step"])[quantity].agg(["mean", "sem"])
    return curve.fillna({"sem": 0.0})


def arms(case: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm of one case, at its best rate.

    ``steps_to_random_final`` is the first evaluated step at which the arm's mean metric reaches random's final mean;
    nothing if it never does, if it or random diverged, or if there is no random.
    """
    order = case["arm"].unique()
    metric, loss = ends(case), ends(case, quantity="loss")
    runs = case[case["tuned"]].groupby(["arm", "seed"])[["lr", "init_seconds", "train_seconds"]].first()
    by_arm = runs.groupby("arm")
    means = mean_curve(case, "metric")["mean"]
    columns = metric.columns[metric.notna().all()]
    first_steps = {}
    if "random" in columns:
        # The same numbers in the same order, so random reaches its own final mean exactly.
        goal = means["random"].iloc[-1]
        for arm in columns:
            steps = means[arm].index[means[arm] >= goal]
            first_steps[arm] = steps[0] if len(steps) else pd.NA
    summary = {
        "lr": by_arm["lr"].first(),
        "seeds": by_arm.size(),
        "metric_mean": metric.mean(),
        "metric_sem": metric.sem(),
        "loss_mean": loss.mean(),
        "steps_to_random_final": pd.Series(first_steps, dtype="Int64"),
        "init_seconds": by_arm["init_seconds"].mean(),
        "train_seconds": by_arm["train_seconds"].mean(),
    }
    return pd.DataFrame(summary).reindex(order)


def plain(value: Any) -> Any:
    """A figure of a table as JSON has it: null where there is none."""
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
