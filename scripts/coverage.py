"""Sweep a model zoo: how many parameter tensors does the tracer attach to operations that really ran?

    python scripts/coverage.py timm
    python scripts/coverage.py hf --pattern "hf:gpt*" --output /tmp/gpt.csv

Models are constructed without memory. Rows are appended as they come, and a second call skips what is there; models
whose default configuration had to be changed are marked as repaired, and counted apart.
"""

import csv
import fnmatch
import gc
import logging
import random
import signal
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any, get_type_hints

import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from ghn.base.predicted import has_rule
from ghn.console import counted, progress_bar
from ghn.errors import GhnError, ModelError
from ghn.models import list_models, load_model
from ghn.tracing.trace import trace

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


@dataclass
class Row:
    """One model: what was found, or why nothing was."""

    model: str
    auto: str = ""
    """Auto classes of transformers that build it, separated by spaces."""
    constructible: bool = True
    repaired: bool = False
    """The default configuration constructs a model that can't run, or none: another one was traced (hf)."""
    tensors: int = 0
    """Distinct parameter tensors."""
    attached: int = 0
    nodes: int = 0
    edges: int = 0
    numel: int = 0
    """Elements of all parameter tensors."""
    kept: int = 0
    """Tensors that can't be predicted and keep the model's own values: not attached, or of role 'unknown'."""
    kept_numel: int = 0
    seconds: float = 0.0
    """Time of construction and tracing."""
    error: str = ""
    note: str = ""

    @property
    def complete(self) -> bool:
        return not self.error and self.attached == self.tensors


class TooSlow(BaseException):
    """Not an ``Exception``: nobody in between may catch it."""


def main(
    zoo: str,
    pattern: str = typer.Option("*", help="Shell pattern of model specifications."),
    auto: list[str] = typer.Option([], help="Only what these auto classes build, such as CAUSAL_LM (hf)."),
    limit: int = typer.Option(0, help="At most this many models; 0 for all."),
    sample: int = typer.Option(0, help="A random sample of this size, always the same; 0 for all."),
    timeout: int = typer.Option(120, help="Seconds per model."),
    output: Path | None = typer.Option(
        None, help="CSV file; benchmarks/results/coverage_ZOO.csv by default."
    ),
    resume: bool = typer.Option(True, help="Skip the models that the file has already."),
    redo: bool = typer.Option(False, help="Do again the models whose row is not complete."),
) -> None:
    """Trace every model of ZOO (timm, torchvision, hf) and write a row for each."""
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    path = output or RESULTS / f"coverage_{zoo}.csv"
    try:
        models = _models(zoo)
    except GhnError as error:
        raise typer.BadParameter(str(error)) from error
    specs = [spec for spec in models if fnmatch.fnmatchcase(spec, pattern)]
    specs = [spec for spec in specs if not auto or {*auto} & {*models[spec]}]
    if sample:
        specs = sorted(random.Random(0).sample(specs, min(sample, len(specs))))
    specs = specs[:limit] if limit else specs
    rows = _read(path) if resume else {}
    if redo:
        rows = {spec: row for spec, row in rows.items() if row.complete}
    _write(path, [rows[spec] for spec in models if spec in rows])
    with progress_bar(*counted("models"), transient=False) as progress, path.open("a", newline="") as file:
        for spec in progress.track([spec for spec in specs if spec not in rows], description=zoo):
            row = _measure(spec, timeout)
            row.auto = " ".join(models[spec])
            rows[spec] = row
            csv.DictWriter(file, [field.name for field in fields(Row)]).writerow(asdict(row))
            file.flush()
            if len(rows) % 10 == 0:
                gc.collect()  # a fifth of a second; models are full of cycles
    _summarize([rows[spec] for spec in specs if spec in rows])


def _models(zoo: str) -> dict[str, tuple[str, ...]]:
    if zoo != "hf":
        return dict.fromkeys(list_models(zoo), ())
    from ghn.models.hf_zoo import heads  # transformers is slow to import

    return {f"hf:{head}": tables for head, tables in heads().items()}


def _measure(spec: str, timeout: int) -> Row:
    row = Row(model=spec, repaired=_is_repaired(spec))
    start = time.perf_counter()
    try:
        try:
            with _deadline(timeout):
                _trace_into(row, load_model(spec, device="meta"))
        except TooSlow:
            if not spec.startswith("hf:"):
                raise
            from ghn.models.hf_zoo import SHALLOW, shallow  # transformers is slow to import

            try:
                small = load_model(spec, device="meta", **shallow(spec.removeprefix("hf:")))
            except ModelError as error:
                raise TooSlow from error
            with _deadline(timeout):
                _trace_into(row, small)
            row.note = f"{row.note} took longer than {timeout} s: reduced to {SHALLOW} layers".strip()
    except TooSlow:
        row.error = f"took longer than {timeout} s"
    except ModelError as error:
        row.constructible, row.error = False, _one_line(error)
    except Exception as error:  # a sweep goes on whatever a model does
        row.error = _one_line(error)
    row.seconds = round(time.perf_counter() - start, 2)
    return row


def _is_repaired(spec: str) -> bool:
    if not spec.startswith("hf:"):
        return False
    from ghn.models.hf_zoo import is_repaired

    try:
        return is_repaired(spec.removeprefix("hf:"))
    except (GhnError, ImportError):
        return False  # it can't be constructed either


def _trace_into(row: Row, model: nn.Module) -> None:
    row.tensors = len(list(model.parameters()))
    try:
        graph = trace(model)
    except ModelError as error:
        raise RuntimeError(f"no inputs: {error}") from error
    row.tensors, row.nodes, row.edges = len(graph.params), len(graph.nodes), len(graph.edges)
    missing = [spec.name for spec in graph.params if spec.node is None]
    row.attached = row.tensors - len(missing)
    own = [spec for spec in graph.params if not has_rule(spec)]
    row.numel = sum(spec.numel for spec in graph.params)
    row.kept, row.kept_numel = len(own), sum(spec.numel for spec in own)
    row.note = f"missing: {' '.join(missing[:4])}{' …' if len(missing) > 4 else ''}" if missing else ""


@contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


def _read(path: Path) -> dict[str, Row]:
    if not path.is_file():
        return {}
    parsers: dict[str, Callable[[str], Any]] = {
        name: "True".__eq__ if kind is bool else kind for name, kind in get_type_hints(Row).items()
    }
    with path.open(newline="") as file:
        rows = [
            Row(
                **{name: parse(entry[name]) for name, parse in parsers.items() if entry.get(name) is not None}
            )
            for entry in csv.DictReader(file)
        ]
    return {row.model: row for row in rows}


def _write(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    partial.replace(path)


def _summarize(rows: list[Row]) -> None:
    """Print what is incomplete, and a table: one line per auto class, models of repaired configurations apart."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        for auto in row.auto.split():
            groups[auto].append(row)
    table = Table(
        title="from the default configuration | repaired: traced with a changed one | all that were built"
    )
    for (
        column
    ) in "models listed | built complete share | repaired complete | tensors attached kept s".split():
        table.add_column(column.replace("|", ""), no_wrap=True)
    for name, group in [*sorted(groups.items()), ("all", rows)]:
        models = [row for row in group if row.constructible]
        cells: list[str] = []
        for repaired in (False, True):
            part = [row for row in models if row.repaired is repaired]
            complete = sum(row.complete for row in part)
            cells += ["|", str(len(part)), str(complete)]
            if not repaired:
                cells.append(f"{complete / max(len(part), 1):.1%}")
        tensors = sum(row.tensors for row in models)
        attached, kept = sum(row.attached for row in models), sum(row.kept_numel for row in models)
        table.add_row(
            name,
            str(len(group)),
            *cells,
            "|",
            str(tensors),
            f"{attached / max(tensors, 1):.2%}",
            f"{kept / max(sum(row.numel for row in models), 1):.2%}",
            f"{sum(row.seconds for row in group):.0f}",
        )
    for row in rows:
        if row.constructible and not row.complete:
            print(f"{row.model}: {row.error or row.note}")
    Console(width=150).print(table)


if __name__ == "__main__":
    typer.run(main)
