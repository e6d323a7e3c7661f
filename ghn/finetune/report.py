"""Results for people: a table on the terminal, curves as CSV and image, a page that holds everything."""

import base64
import csv
import html
import io
import json
from collections.abc import Sequence
from statistics import fmean

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ghn.finetune.results import Results, Run, best_runs, mean_curve
from ghn.finetune.store import Store

COLOURS = {
    "ghn": "tab:blue",
    "base": "tab:orange",
    "random": "tab:gray",
    "orthogonal": "tab:green",
    "mimetic": "tab:purple",
}
"""Of each arm's curve, the same in every plot."""

_HEADINGS = ("arm", "best lr", "{metric}", "loss", "steps to random's final", "init", "train")

_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } td, th { padding: .3rem .9rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } img { max-width: 100% } pre { background: #f6f6f6; padding: .8rem;
overflow-x: auto } @media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd }
pre { background: #262626 } td, th { border-color: #444 } img { background: #fff } }"""


def write_report(results: Results, store: Store) -> None:
    """Write ``results.json``, ``curves.csv``, ``curves.png`` and ``report.html``."""
    png = curves_png(results)
    store.write_json("results.json", results.to_dict())
    store.write("curves.csv", curves_csv(results))
    store.write("curves.png", png)
    store.write("report.html", page(results, png))


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
        sem = "" if entry["metric_sem"] is None else f" ± {entry['metric_sem']:.4f}"
        steps = entry["steps_to_random_final"]
        found.append(
            (
                init,
                f"{entry['lr']:g}",
                "diverged" if entry["metric_mean"] is None else f"{entry['metric_mean']:.4f}{sem}",
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
    for axes, quantity, label in zip(
        figure.subplots(1, 2), ("metric", "loss"), (results.metric_name, "loss"), strict=True
    ):
        for init in results.inits:
            runs = best_runs(results.runs, init)
            _draw(axes, runs, quantity, f"{init} (lr {runs[0].lr:g})", COLOURS.get(init))
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
    image = base64.b64encode(png).decode()
    title = html.escape(_title(results))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n"
        f"<table><thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody></table>\n{remarks}"
        f'<p><img alt="{html.escape(results.metric_name)} and loss" src="data:image/png;base64,{image}"></p>\n'
        f"<p>Mean ± standard error over seeds, each arm at its own best learning rate of the same grid.</p>\n"
        f"<h2>Configuration</h2><pre>{_pretty(results.config)}</pre>\n"
        f"<h2>Provenance</h2><pre>{_pretty(results.provenance)}</pre></body></html>\n"
    )


def _draw(axes: object, runs: Sequence[Run], quantity: str, label: str, colour: str | None) -> None:
    steps, means, errors = zip(*mean_curve(runs, quantity) or [(0, float("nan"), 0.0)], strict=True)
    (line,) = axes.plot(steps, means, label=label, color=colour)  # type: ignore[attr-defined]
    low = [mean - error for mean, error in zip(means, errors, strict=True)]
    high = [mean + error for mean, error in zip(means, errors, strict=True)]
    axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color())  # type: ignore[attr-defined]


def _headings(results: Results) -> list[str]:
    return [heading.format(metric=results.metric_name) for heading in _HEADINGS]


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


def _pretty(values: object) -> str:
    return html.escape(json.dumps(values, indent=2, ensure_ascii=False))
