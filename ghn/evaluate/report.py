"""Files of an evaluation: rows, curves, verdicts, a table to read, and plots."""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ghn.apply.rules import split_arm
from ghn.evaluate.run import Outcome
from ghn.evaluate.statistics import Row, Verdict, is_significant, rows, verdicts
from ghn.files import write_whole
from ghn.finetune.report import COLOURS, png_of
from ghn.finetune.results import mean_curve

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
"""Of the plots."""

_STYLES: dict[str, dict[str, Any]] = {
    "ghn": {"linewidth": 2.4, "zorder": 2.5},
    "base": {"linestyle": (0, (2, 2)), "zorder": 3},
}
"""Where nothing is learned the base is the prediction, and its dashes lie upon that."""


def write_evaluation(outcomes: Sequence[Outcome], settings: dict[str, Any], folder: Path) -> list[Verdict]:
    """Write ``models.csv``, ``curves.csv``, ``verdicts.csv``, ``results.json``, ``table.md`` and a plot per data set.

    Args:
        outcomes: Of complete cases.
        settings: Of the evaluation, with its provenance: goes into ``results.json``.
        folder: Exists.

    Returns:
        The verdicts.

    Raises:
        OutputError: If a file can't be written.
    """
    table = [row for outcome in outcomes for row in rows(outcome)]
    ablations = dict.fromkeys(arm for outcome in outcomes for arm in outcome.tuned if split_arm(arm)[1])
    against = [(arm, other) for arm in ablations for other in ("random", split_arm(arm)[0])]
    counted = verdicts(outcomes, (*PAIRS, *against))
    results = {"schema": 1, **settings, "verdicts": counted, "models": table}
    results |= {name: [asdict(entry) for entry in results[name]] for name in ("verdicts", "models")}
    contents: dict[str, bytes] = {
        "models.csv": _csv([asdict(row) for row in table], Row).encode(),
        "verdicts.csv": _csv([asdict(verdict) for verdict in counted], Verdict).encode(),
        "curves.csv": curves_csv(outcomes).encode(),
        "table.md": markdown(table, counted).encode(),
        "results.json": (json.dumps(results, indent=1) + "\n").encode(),
    }
    for dataset in dict.fromkeys(outcome.case.data for outcome in outcomes):
        shown = [outcome for outcome in outcomes if outcome.case.data == dataset]
        contents[f"curves-{re.sub(r'[^A-Za-z0-9.-]+', '-', dataset)}.png"] = curves_png(shown)
    for name, content in contents.items():
        write_whole(folder / name, content, "finished runs are kept")
    return counted


def curves_csv(outcomes: Sequence[Outcome]) -> str:
    """Every evaluation of every run, tuning included."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("model", "dataset", "arm", "seed", "lr", "step", "loss", "metric"))
    for outcome in outcomes:
        runs = {
            (arm, run.seed, run.lr): run
            for group in (outcome.tuning, outcome.tuned)
            for arm, several in group.items()
            for run in several
        }
        for (arm, seed, lr), run in runs.items():
            for point in run.curve:
                values = (point.step, f"{point.loss:.5g}", f"{point.metric:.5g}")
                writer.writerow((outcome.case.name, outcome.case.data, arm, seed, lr, *values))
    return text.getvalue()


def markdown(table: Sequence[Row], counted: Sequence[Verdict]) -> str:
    """Verdicts and, per data set, a table of final metrics with a column for each arm."""
    lines = ["| data | arm | against | budget | models | higher / lower | significantly | mean difference |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for verdict in counted:
        error = "" if verdict.sem_difference is None else f" ± {verdict.sem_difference:.4f}"
        lines.append(
            f"| {verdict.dataset} | {verdict.arm} | {verdict.against} | {verdict.share:.0%} | "
            f"{verdict.models} | {verdict.wins} / {verdict.losses} | {verdict.significant_wins} / "
            f"{verdict.significant_losses} | {verdict.mean_difference:+.4f}{error} |"
        )
    for dataset in dict.fromkeys(row.dataset for row in table):
        shown = [row for row in table if row.dataset == dataset]
        arms = list(dict.fromkeys(row.arm for row in shown))
        lines += [
            "",
            f"Final metric on {dataset}, best rate of each arm; steps to random's final.",
            "",
        ]
        shown_arm = next((arm for arm in ("ghn", "base") if arm in arms), arms[-1])
        lines.append(f"| model | parameters | {' | '.join(arms)} | steps ({shown_arm}) |")
        lines.append("|---" * (len(arms) + 3) + "|")
        for model in dict.fromkeys(row.model for row in shown):
            entries = {row.arm: row for row in shown if row.model == model}
            first = next(iter(entries.values()))
            steps = entries[shown_arm].steps_to_random_final if shown_arm in entries else None
            cells = [_cell(entries.get(arm)) for arm in arms]
            reached = f"{steps} of {first.steps}" if steps is not None else "–"
            lines.append(f"| {model} | {first.parameters:,} | {' | '.join(cells)} | {reached} |")
    return "\n".join(lines) + "\n"


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
        for arm, runs in outcome.tuned.items():
            curve = mean_curve(runs, "metric")
            # Without a point if no run was finite at the first step.
            steps, means, errors = ([point[index] for point in curve] for index in range(3))
            style = {"linewidth": 1.2} | _STYLES.get(arm, {})
            lines[arm] = plot.errorbar(steps, means, errors, color=COLOURS.get(arm), **style)
        plot.set_title(outcome.case.name, fontsize=9)
        plot.grid(alpha=0.3)
    for plot in axes[len(outcomes) :]:
        plot.axis("off")
    figure.legend(list(lines.values()), list(lines), loc="outside upper center", ncols=len(lines))
    figure.supxlabel("step")
    figure.supylabel(outcomes[0].metric)
    return figure


def _csv(entries: Sequence[dict[str, Any]], kind: type[Row] | type[Verdict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [entry.name for entry in fields(kind)], lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in entry.items()})
    return text.getvalue()


def _cell(row: Row | None) -> str:
    if row is None or row.metric_100 is None:
        return "diverged" if row else "–"
    mark = " *" if is_significant(row.p_value) else ""
    return f"{row.metric_100:.4f} ± {row.sem_100 or 0.0:.4f}{mark}"
