"""Files of an evaluation: rows, curves, verdicts, a table to read, and plots."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ghn.apply.rules import split_arm
from ghn.evaluate.run import Outcome
from ghn.evaluate.statistics import is_significant, models, verdicts
from ghn.finetune.page import Table, page, png_of
from ghn.finetune.report import COLOURS
from ghn.finetune.run_folder import RunFolder
from ghn.finetune.table import mean_curve, plain

PAIRS = (
    ("ghn", "random"),
    ("base", "random"),
    ("orthogonal", "random"),
    ("mimetic", "random"),
    ("ghn", "base"),
    ("ghn", "orthogonal"),
    ("ghn", "mimetic"),
)
"""Which arm is counted against which; one that leaves rules out, against random and against the whole."""

_COLUMNS = 4
"""Plots beside each other in a figure."""

_STYLES: dict[str, dict[str, Any]] = {
    "ghn": {"linewidth": 2.4, "zorder": 2.5},
    "base": {"linestyle": (0, (2, 2)), "zorder": 3},
}
"""Where nothing is learned the base is the prediction, and its dashes lie upon that."""


FILES = {
    "table.md": "the tables above",
    "models.csv": "a row for each arm of each model",
    "verdicts.csv": "a row for each pair of arms",
    "curves.csv": "every evaluation of every run, tuning included",
    "results.json": "settings, versions, and both tables",
}
"""Files beside the page that it leads to, and what they hold."""

CURVES = ["model", "dataset", "arm", "seed", "lr", "step", "loss", "metric"]
"""Columns of the long table that ``curves.csv`` has."""


def write_evaluation(
    outcomes: Sequence[Outcome], settings: dict[str, Any], folder: RunFolder
) -> pd.DataFrame:
    """Write ``FILES``, a plot per data set, and ``report.html``, which shows them all.

    Args:
        outcomes: Outcomes of complete cases.
        settings: Settings and provenance of the evaluation, for ``results.json``.
        folder: An existing folder.

    Returns:
        The verdicts.

    Raises:
        OutputError: If a file can't be written.
    """
    table = pd.concat([outcome.table() for outcome in outcomes], ignore_index=True)
    rows = models(table)
    ablations = [arm for arm in table["arm"].unique() if split_arm(arm)[1]]
    against = [(arm, other) for arm in ablations for other in ("random", split_arm(arm)[0])]
    counts = verdicts(table, (*PAIRS, *against))
    tables = tables_of(rows, counts)
    pictures, titles, names = {}, {}, {}
    for dataset in table["dataset"].unique():
        group = [outcome for outcome in outcomes if outcome.case.data == dataset]
        pictures[dataset] = curves_png(group)
        titles[dataset] = f"{group[0].metric} on {dataset}"
        names[dataset] = f"curves-{re.sub(r'[^A-Za-z0-9.-]+', '-', dataset)}.png"
    results = {"verdicts": _records(counts), "models": _records(rows)}
    folder.write("models.csv", _csv(rows))
    folder.write("verdicts.csv", _csv(counts))
    folder.write("curves.csv", curves_csv(table))
    folder.write("table.md", "\n\n".join(each.markdown() for each in tables) + "\n")
    folder.write_json("results.json", {"schema": 1, **settings, **results})
    for dataset, picture in pictures.items():
        folder.write(names[dataset], picture)
    facts = {name: value for name, value in settings.items() if name not in ("config", "machine", "versions")}
    text = page(
        f"Initializations on {rows['model'].nunique()} held-out models",
        tables,
        remarks=["* p < 0.05 against random in a paired t-test over the seeds."],
        pictures={titles[dataset]: picture for dataset, picture in pictures.items()},
        files=FILES | {names[dataset]: f"curves on {dataset}" for dataset in pictures},
        facts={"Settings": settings.get("config", {}), "Provenance": facts},
    )
    folder.write("report.html", text)
    return counts


def curves_csv(table: pd.DataFrame) -> str:
    """Every evaluation of every run, tuning included."""
    return str(table.dropna(subset="metric").to_csv(columns=CURVES, index=False, float_format="%.5g"))


def tables_of(rows: pd.DataFrame, counts: pd.DataFrame) -> list[Table]:
    """Verdicts and, per data set, a table of final metrics with a column for each arm."""
    lines = []
    for verdict in counts.to_dict("records"):
        error = plain(verdict["sem_difference"])
        lines.append(
            (
                verdict["dataset"],
                verdict["arm"],
                verdict["against"],
                f"{verdict['share']:.0%}",
                str(verdict["models"]),
                f"{verdict['wins']} / {verdict['losses']}",
                f"{verdict['significant_wins']} / {verdict['significant_losses']}",
                f"{verdict['mean_difference']:+.4f}" + ("" if error is None else f" ± {error:.4f}"),
            )
        )
    columns = (
        "data",
        "arm",
        "against",
        "budget",
        "models",
        "higher / lower",
        "significantly",
        "mean difference",
    )
    finals = [_finals(str(dataset), data) for dataset, data in rows.groupby("dataset", sort=False)]
    return [Table(columns=columns, rows=lines), *finals]


def _finals(dataset: str, rows: pd.DataFrame) -> Table:
    arms = list(rows["arm"].unique())
    steps_arm = next((arm for arm in ("ghn", "base") if arm in arms), arms[-1])
    lines = []
    for model, entries in rows.groupby("model", sort=False):
        by_arm = entries.set_index("arm").to_dict("index")
        steps = plain(by_arm[steps_arm]["steps_to_random_final"]) if steps_arm in by_arm else None
        cells = [_cell(by_arm.get(arm)) for arm in arms]
        progress = "–" if steps is None else f"{steps} of {entries['steps'].iloc[0]}"
        lines.append((str(model), f"{entries['parameters'].iloc[0]:,}", *cells, progress))
    return Table(
        columns=("model", "parameters", *arms, f"steps ({steps_arm})"),
        rows=lines,
        title=f"Final metric on {dataset}, best rate of each arm; steps to random's final.",
    )


def curves_png(outcomes: Sequence[Outcome]) -> bytes:
    """A small plot for each model: mean and standard error of each arm's metric."""
    return png_of(curves_figure(outcomes))


def curves_figure(outcomes: Sequence[Outcome]) -> Figure:
    """What ``curves_png`` shows; an arm has one colour in all plots."""
    columns = min(_COLUMNS, len(outcomes))
    count = math.ceil(len(outcomes) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * count), layout="constrained", dpi=80)
    axes = list(figure.subplots(count, columns, squeeze=False).flat)
    lines: dict[str, Any] = {}
    for outcome, plot in zip(outcomes, axes, strict=False):
        curves = mean_curve(outcome.table(), "metric")
        for arm in outcome.tuned:
            # Without a point if no run was finite at the first step.
            curve = curves.loc[arm] if arm in curves.index else curves.iloc[:0].droplevel("arm")
            style = {"linewidth": 1.2} | _STYLES.get(arm, {})
            lines[arm] = plot.errorbar(
                curve.index, curve["mean"], curve["sem"], color=COLOURS.get(arm), **style
            )
        plot.set_title(outcome.case.name, fontsize=9)
        plot.grid(alpha=0.3)
    for plot in axes[len(outcomes) :]:
        plot.axis("off")
    figure.legend(list(lines.values()), list(lines), loc="outside upper center", ncols=len(lines))
    figure.supxlabel("step")
    figure.supylabel(outcomes[0].metric)
    return figure


def _csv(rows: pd.DataFrame) -> str:
    return str(rows.to_csv(index=False, float_format="%.6g"))


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{name: plain(value) for name, value in row.items()} for row in rows.to_dict("records")]


def _cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "–"
    mean, error = plain(entry["metric_100"]), plain(entry["sem_100"])
    if mean is None:
        return "diverged"
    return f"{mean:.4f} ± {error or 0.0:.4f}{' *' if is_significant(plain(entry['p_value'])) else ''}"
