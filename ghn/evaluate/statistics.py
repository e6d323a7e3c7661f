"""What an evaluation says: means and errors of each model, paired tests, and counts over all models.

Both tables are made of the long one (``ghn.finetune.table``), which has ``spec``, ``family``, ``parameters`` and
``transfer`` for each case, too.
"""

from collections.abc import Sequence

import pandas as pd
from scipy import stats

from ghn.finetune.table import CASE, arms, ends

SHARES = (0.1, 0.3, 1.0)
"""Shares of the budget at which metrics are reported."""

SIGNIFICANT = 0.05

ROUNDING = 1e-9
"""Deviation below which differences are equal: they are multiples of one by the number of examples."""

CASE_COLUMNS = ("model", "spec", "family", "parameters", "dataset", "transfer")
VERDICT_COLUMNS = (
    *(
        "dataset",
        "arm",
        "against",
        "share",
        "models",
        "wins",
        "losses",
        "significant_wins",
        "significant_losses",
    ),
    *("diverged", "mean_difference", "sem_difference", "p_value", "median_steps_share"),
)


def models(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm of each case.

    ``metric_10`` and so on are means over the seeds after that many percent of the budget, ``difference`` that of the
    final metric to random's, ``p_value`` of a paired t-test over the seeds that it is 0. What a diverged run decides is
    missing. ``commit`` is of the library that ran it, several with commas.
    """
    return pd.concat([_arms_of(case) for _, case in table.groupby(CASE, sort=False)], ignore_index=True)


def _arms_of(case: pd.DataFrame) -> pd.DataFrame:
    summary, by_share = arms(case), {share: ends(case, share) for share in SHARES}
    differences = by_share[1.0].sub(by_share[1.0]["random"], axis="index")
    commits = (
        case[case["tuned"]].groupby("arm")["commit"].agg(lambda all_: ",".join(filter(None, all_.unique())))
    )
    figures: dict[str, pd.Series] = {}
    for share, values in by_share.items():
        figures |= {f"metric_{share:.0%}": values.mean(), f"sem_{share:.0%}": values.sem()}
    rows = {
        **{name: case[name].iloc[0] for name in CASE_COLUMNS},
        "arm": summary.index,
        "lr": summary["lr"],
        "seeds": summary["seeds"],
        **{name.removesuffix("%"): values for name, values in figures.items()},
        "difference": differences.mean(),
        "difference_sem": differences.sem(),
        "p_value": differences.apply(t_test),
        "commit": commits,
        "steps": case["step"].max(),
        "steps_to_random_final": summary["steps_to_random_final"],
        "init_seconds": summary["init_seconds"],
        "train_seconds": summary["train_seconds"],
    }
    return pd.DataFrame(rows, index=summary.index)


def verdicts(table: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Count over the models of each data set, for every pair (arm, against) and share of the budget.

    ``wins`` are models with the higher mean metric, or where the other arm alone diverged; equal ones are neither wins
    nor ``losses``. They are significant with a paired t-test over the seeds below ``SIGNIFICANT``. Models on which
    either arm ``diverged`` are no part of the mean difference, of its error, and of ``p_value``: Wilcoxon's signed-rank
    test over the models' mean differences, which leaves out those of 0. ``median_steps_share``, against random and at
    the end alone, is the median over the models of ``steps_to_random_final`` as a share of the budget, never reached as
    1, without models on which random diverged.
    """
    entries = []
    for dataset, data in table[table["tuned"]].groupby("dataset", sort=False):
        diverged = data.groupby(["model", "arm"])["diverged"].any().unstack("arm")  # nothing: no such arm
        rows = models(data).set_index(["arm", "model"])
        figures = {share: ends(data, share) for share in SHARES}
        for arm, against in pairs:
            if not {arm, against} <= {*diverged.columns}:
                continue
            both = diverged[[arm, against]].dropna().astype(int)
            for share in SHARES:
                difference = (figures[share][arm] - figures[share][against]).groupby("model")
                verdict = _verdict(both, difference)
                steps_share = None
                if share == 1.0 and against == "random":
                    steps = rows.loc[arm].loc[both.index[both["random"] == 0]]
                    steps_share = (steps["steps_to_random_final"] / steps["steps"]).fillna(1.0).median()
                entries.append(
                    {"dataset": dataset, "arm": arm, "against": against, "share": share}
                    | verdict
                    | {"median_steps_share": steps_share}
                )
    return pd.DataFrame(entries, columns=VERDICT_COLUMNS)


def _verdict(both: pd.DataFrame, difference: "pd.api.typing.SeriesGroupBy") -> dict[str, float | None]:
    """Counts of one pair.

    Args:
        both: Models that have both arms, and whether each of the two diverged (0 or 1).
        difference: Of the metric, by model; nothing where one of them diverged.
    """
    means = difference.mean().reindex(both.index)
    finite = means.dropna()
    tests = difference.agg(t_test).reindex(both.index)
    significant = means[tests.map(is_significant)]
    # A model on which one of the two diverged is decided, but by no finite difference.
    outcomes = means.fillna(both.iloc[:, 1] - both.iloc[:, 0])
    return {
        "models": len(both),
        "wins": int((outcomes > 0).sum()),
        "losses": int((outcomes < 0).sum()),
        "significant_wins": int((significant > 0).sum()),
        "significant_losses": int((significant < 0).sum()),
        "diverged": len(both) - len(finite),
        "mean_difference": finite.mean(),
        "sem_difference": finite.sem(),
        "p_value": float(stats.wilcoxon(finite).pvalue) if finite.any() else None,
    }


def t_test(differences: pd.Series) -> float | None:
    """Two-sided p-value that paired differences have mean 0; None for fewer than two, or if they are all equal."""
    values = differences.dropna()
    if len(values) < 2 or values.std() < ROUNDING:
        return None
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def is_significant(p_value: float | None) -> bool:
    """Whether a test was possible, and its p-value is below ``SIGNIFICANT``."""
    return p_value is not None and p_value < SIGNIFICANT
