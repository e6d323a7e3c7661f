"""Results for people: a table on the terminal, curves as CSV and image, a page that holds everything."""

import base64
import csv
import html
import io
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ghn.finetune.results import Results, Run, best_runs, mean_curve
from ghn.finetune.run_folder import RunFolder

COLOURS = {
    "ghn": "tab:blue",
    "base": "tab:orange",
    "random": "tab:gray",
    "orthogonal": "tab:green",
    "mimetic": "tab:purple",
}
"""Of each arm's curve, the same in every plot."""

_HEADINGS = ("arm", "best lr", "{metric}", "loss", "steps to random's final", "init", "train")

_RAW = {
    "results.json": "every run, settings and versions",
    "curves.csv": "every evaluation of every run",
    "curves.png": "the picture",
}
"""Files beside the page that it leads to, and what they hold."""

_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } td, th { padding: .3rem .9rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } .wide { overflow-x: auto } img { width: 100%; min-width: 40rem }
.settings td { text-align: left; overflow-wrap: anywhere } .settings td:first-child { white-space: nowrap }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } a { color: #8ab4f8 }
td, th { border-color: #444 } img { background: #fff } }"""


def write_report(results: Results, folder: RunFolder) -> None:
    """Write ``results.json``, ``curves.csv``, ``curves.png`` and ``report.html``."""
    png = curves_png(results)
    folder.write_json("results.json", results.to_dict())
    folder.write("curves.csv", curves_csv(results))
    folder.write("curves.png", png)
    folder.write("report.html", page(results, png))


def show(results: Results) -> None:
    """Print the summary and where the files are; nothing in processes that wrote none."""
    if results.output_dir:
        console = Console()
        console.print(table(results))
        console.print(
            f"Results are in {results.output_dir}: report.html, results.json, curves.csv, curves.png"
        )


def table(results: Results) -> Table:
    """The summary for a terminal; needs 80 columns."""
    found = Table(
        title=_title(results), title_justify="left", caption=_remarks(results), caption_justify="left"
    )
    for number, heading in enumerate(_headings(results)):
        found.add_column(heading, justify="left" if number == 0 else "right")
    for row in rows(results):
        found.add_row(*row)
    return found


def rows(results: Results) -> list[tuple[str, ...]]:
    """One row of text per arm, in the columns of the table."""
    found: list[tuple[str, ...]] = []
    for init, entry in results.summary().items():
        runs = best_runs(results.runs, init)
        mean, error = entry["metric_mean"], entry["metric_sem"]
        steps = entry["steps_to_random_final"]
        found.append(
            (
                init,
                f"{entry['lr']:g}",
                "diverged" if mean is None else _figure(results, mean, error),
                "–" if entry["loss_mean"] is None else f"{entry['loss_mean']:.4f}",
                "–" if steps is None else str(steps),
                f"{fmean(run.init_seconds for run in runs):.2f} s",
                f"{fmean(run.train_seconds for run in runs):.1f} s",
            )
        )
    return found


def curves_csv(results: Results) -> str:
    """All curves of all runs, one evaluation a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("init", "seed", "lr", "step", "loss", "metric"))
    for run in results.runs:
        for point in run.curve:
            writer.writerow((run.init, run.seed, run.lr, point.step, point.loss, point.metric))
    return text.getvalue()


def curves_png(results: Results) -> bytes:
    """Mean and standard error over seeds of each arm at its best learning rate, metric and loss."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    factor, _, metric = _unit(results)
    for axes, quantity, scale, label in zip(
        figure.subplots(1, 2), ("metric", "loss"), (factor, 1), (metric, "loss"), strict=True
    ):
        for init in results.inits:
            runs = best_runs(results.runs, init)
            _draw(axes, runs, quantity, scale, f"{init} (lr {runs[0].lr:g})", COLOURS.get(init))
        axes.set(xlabel="step", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"{results.model} on {results.dataset}")
    return png_of(figure)


def png_of(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def page(results: Results, png: bytes) -> str:
    """A page that needs no other file and no network."""
    heads = "".join(f"<th>{html.escape(heading)}</th>" for heading in _headings(results))
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows(results)
    )
    remarks = "".join(f"<p>{html.escape(line)}</p>\n" for line in _remarks(results).splitlines())
    files = "".join(f'<li><a href="{name}">{name}</a>: {what}</li>\n' for name, what in _RAW.items())
    picture = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    title = html.escape(_title(results))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n"
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody></table></div>\n'
        f"<p>Mean ± standard error over seeds, each arm at its own best learning rate of the same grid.</p>\n"
        f'{remarks}<div class="wide"><img alt="{html.escape(_unit(results)[2])} and loss" src="{picture}"></div>\n'
        f"<h2>Files</h2><ul>\n{files}</ul>\n"
        f"<h2>Settings</h2>\n{_settings_table(results.settings)}"
        f"<h2>Provenance</h2>\n{_settings_table(results.provenance)}</body></html>\n"
    )


def _draw(
    axes: object, runs: Sequence[Run], quantity: str, scale: float, label: str, colour: str | None
) -> None:
    curve = [(step, scale * mean, abs(scale) * error) for step, mean, error in mean_curve(runs, quantity)]
    steps, means, errors = zip(*curve or [(0, float("nan"), 0.0)], strict=True)
    (line,) = axes.plot(steps, means, label=label, color=colour)  # type: ignore[attr-defined]
    low = [mean - error for mean, error in zip(means, errors, strict=True)]
    high = [mean + error for mean, error in zip(means, errors, strict=True)]
    axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color())  # type: ignore[attr-defined]


def _headings(results: Results) -> list[str]:
    return [heading.format(metric=_unit(results)[2]) for heading in _HEADINGS]


def _unit(results: Results) -> tuple[float, int, str]:
    """How the metric is shown: times what, with how many decimals, and under which name."""
    return (100.0, 1, "accuracy, %") if results.metric_name == "accuracy" else (-1.0, 3, "bits per byte")


def _figure(results: Results, mean: float, error: float | None) -> str:
    scale, decimals, _ = _unit(results)
    spread = "" if error is None else f" ± {abs(scale) * error:.{decimals}f}"
    return f"{scale * mean:.{decimals}f}{spread}"


def _title(results: Results) -> str:
    budget = results.budget
    return (
        f"{results.model} ({results.parameters:,} parameters) on {results.dataset}: {budget['steps']} steps of "
        f"{budget['batch_size']}"
    )


def _remarks(results: Results) -> str:
    """What each arm changed, and which runs stopped early."""
    notes = {run.init: run.note for run in results.runs if run.note}
    lines = [f"{init}: {note}" for init, note in notes.items()]
    lines += [f"{run.init}, seed {run.seed}, lr {run.lr:g}: {run.error}" for run in results.runs if run.error]
    return "\n".join(lines)


def _settings_table(values: Mapping[str, Any]) -> str:
    lines = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(_plain(value))}</td></tr>\n"
        for name, value in values.items()
    )
    return f'<table class="settings"><tbody>\n{lines}</tbody></table>\n'


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {entry}" for name, entry in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "–"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
