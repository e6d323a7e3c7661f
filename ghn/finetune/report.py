"""A comparison for people: a table on the terminal, curves as CSV and image, a page that holds everything."""

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table as RichTable

from ghn.finetune.page import Table, page, png_of
from ghn.finetune.results import SUMMARY, Results
from ghn.finetune.run_folder import RunFolder
from ghn.finetune.table import mean_curve, plain

COLOURS = {
    "ghn": "tab:blue",
    "base": "tab:orange",
    "random": "tab:gray",
    "orthogonal": "tab:green",
    "mimetic": "tab:purple",
}
"""Colour of each arm's curve, the same in every plot."""

FILES = {
    "results.json": "every run, settings and versions",
    "curves.csv": "every evaluation of every run",
    "curves.png": "the picture",
}
"""Files beside the page that it leads to, and what they hold."""

CURVES = {"model": "model", "dataset": "dataset", "arm": "init"} | {
    name: name for name in ("seed", "lr", "step", "loss", "metric")
}
"""Columns of the long table that ``curves.csv`` has, and how it calls them."""


def write_report(results: Results, folder: RunFolder) -> None:
    """Write ``results.json``, ``curves.csv``, ``curves.png`` and ``report.html``."""
    png = curves_png(results)
    folder.write_json("results.json", results.to_dict())
    folder.write("curves.csv", curves_csv(results))
    folder.write("curves.png", png)
    remarks = ["Mean ± standard error over seeds, each arm at its own best learning rate of the same grid."]
    text = page(
        _title(results),
        [summary_table(results)],
        remarks=remarks + _remarks(results),
        pictures={f"{_unit(results)[2]} and loss": png},
        files=FILES,
        facts={"Settings": results.settings, "Provenance": results.provenance},
    )
    folder.write("report.html", text)


def show(results: Results) -> None:
    """Print the summary and where the files are; nothing in processes that wrote none."""
    if results.output_dir:
        console = Console()
        console.print(table(results))
        console.print(f"Results are in {results.output_dir}: report.html, {', '.join(FILES)}")


def table(results: Results) -> RichTable:
    """The summary for a terminal; needs 80 columns."""
    summary = summary_table(results).terminal(caption="\n".join(_remarks(results)))
    summary.title = _title(results)
    return summary


def summary_table(results: Results) -> Table:
    """One row per arm."""
    scale, decimals, metric = _unit(results)
    rows = []
    for arm, entry in results.arms().to_dict("index").items():
        mean, error, loss, steps = (plain(entry[name]) for name in SUMMARY[1:])
        spread = "" if error is None else f" ± {abs(scale) * error:.{decimals}f}"
        rows.append(
            (
                str(arm),
                f"{entry['lr']:g}",
                "diverged" if mean is None else f"{scale * mean:.{decimals}f}{spread}",
                "–" if loss is None else f"{loss:.4f}",
                "–" if steps is None else str(steps),
                f"{entry['init_seconds']:.2f} s",
                f"{entry['train_seconds']:.1f} s",
            )
        )
    return Table(
        columns=("arm", "best lr", metric, "loss", "steps to random's final", "init", "train"), rows=rows
    )


def curves_csv(results: Results) -> str:
    """All curves of all runs, one evaluation a line."""
    figures = results.table.dropna(subset="metric")
    return str(figures.rename(columns=CURVES).to_csv(columns=list(CURVES.values()), index=False))


def curves_png(results: Results) -> bytes:
    """Mean and standard error over seeds of each arm at its best learning rate, metric and loss."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    factor, _, metric = _unit(results)
    rates = results.arms()["lr"]
    for axes, quantity, scale, label in zip(
        figure.subplots(1, 2), ("metric", "loss"), (factor, 1.0), (metric, "loss"), strict=True
    ):
        curves = scale * mean_curve(results.table, quantity)
        for arm, rate in rates.items():
            curve = curves.loc[arm] if arm in curves.index else curves.iloc[:0]
            (line,) = axes.plot(curve["mean"], label=f"{arm} (lr {rate:g})", color=COLOURS.get(str(arm)))
            bounds = curve["mean"] - curve["sem"], curve["mean"] + curve["sem"]
            axes.fill_between(curve.index, *bounds, alpha=0.2, color=line.get_color())
        axes.set(xlabel="step", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"{results.model} on {results.dataset}")
    return png_of(figure)


def _unit(results: Results) -> tuple[float, int, str]:
    """How the metric is shown: times what, with how many decimals, and under which name."""
    name = results.metric_name
    if name == "accuracy":
        return 100.0, 1, "accuracy, %"
    if name[:1] in "−-":  # what is smaller is better without the sign
        return -1.0, 3, name[1:]
    return 1.0, 3, name


def _title(results: Results) -> str:
    budget = results.budget
    return (
        f"{results.model} ({results.parameters:,} parameters) on {results.dataset}: {budget['steps']} steps of "
        f"{budget['batch_size']}"
    )


def _remarks(results: Results) -> list[str]:
    """What each arm changed, and which runs stopped early."""
    notes = {run.init: run.note for run in results.runs if run.note}
    errors = [f"{run.init}, seed {run.seed}, lr {run.lr:g}: {run.error}" for run in results.runs if run.error]
    return [f"{init}: {note}" for init, note in notes.items()] + errors
