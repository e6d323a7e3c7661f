"""What the ablations share: short meta-training of variants on the same targets, their loss on unseen ones, figures."""

import csv
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a clone works without installation

import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ghn.decoder import DecoderConfig
from ghn.environment import commit, machine, versions
from ghn.hypernetwork import GHN, GHNConfig
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.loop import metatrain
from ghn.metatrain.targets import Targets
from ghn.metatrain.tasks import load_tasks
from ghn.metatrain.update import predict_with_trust

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "ablations"

SMALL = MetaTrainConfig(
    sequence_length=32,
    text_tokens=2**20,
    networks=24,
    objective="step0",
    steps=80,
    lr=4e-3,
    warmup_steps=10,
    inner_batch_size=32,
    trust_penalty=0.0,
    image_trust_penalty=0.0,
    image_weight=1.0,
    ema=0.9,
    save_every=10_000,
    ghn=GHNConfig(decoder=DecoderConfig(base="none")),
)
"""All is learned, and judged by the loss of the prediction: that asks most of a hypernetwork and costs least."""

UNSEEN = 12
"""Architectures drawn under another seed that the result is measured on."""

SMOOTHING = 15
"""Updates that a point of a curve averages over."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A variant after meta-training."""

    variant: str
    seed: int
    parameters: int
    seconds: float
    first_updates: float
    """Mean loss of the first tenth of the updates, in nats."""
    last_updates: float
    """Of the last quarter."""
    unseen: float
    """Mean loss of predictions for unseen architectures, with averaged weights."""


def train_variants(
    variants: Mapping[str, MetaTrainConfig], seeds: Sequence[int]
) -> tuple[list[Trained], dict[str, list[list[float]]], dict[str, GHN]]:
    """Meta-train every variant under every seed.

    Returns:
        A row for each, the loss of every update by variant and seed, and the last hypernetwork of each variant.
    """
    rows: list[Trained] = []
    curves: dict[str, list[list[float]]] = {}
    nets: dict[str, GHN] = {}
    for name, config in variants.items():
        curves[name] = []
        for seed in seeds:
            row, losses, nets[name] = train_variant(name, replace(config, seed=seed))
            rows.append(row)
            curves[name].append(losses)
            Console().print(row)
    return rows, curves, nets


def train_variant(name: str, config: MetaTrainConfig) -> tuple[Trained, list[float], GHN]:
    """Meta-train once."""
    losses: list[float] = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        net = metatrain(config, Path(folder), progress=lambda done, row: losses.append(row["first_loss"]))
    seconds = time.perf_counter() - started
    row = Trained(
        variant=name,
        seed=config.seed,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        seconds=seconds,
        first_updates=fmean(losses[: max(1, len(losses) // 10)]),
        last_updates=fmean(losses[-max(1, len(losses) // 4) :]),
        unseen=unseen_loss(net, config),
    )
    return row, losses, net


@torch.no_grad()
def unseen_loss(net: GHN, config: MetaTrainConfig) -> float:
    """Mean loss, in nats, of predictions for architectures that were not trained on, on fresh batches."""
    config = replace(config, seed=config.seed + 1000, bases=1)  # every draw another architecture
    tasks = load_tasks(config, net.device)
    targets, losses = Targets(config, tasks), []
    for number in range(UNSEEN):
        target = targets.draw(number // 2, number % 2)
        predicted, _ = predict_with_trust(net, [target])[0]
        target.model.load_state_dict(predicted, strict=False)  # what can't be predicted keeps its own values
        task = tasks[target.task]
        (batch,) = task.examples.batches(1, 64, torch.Generator().manual_seed(number))
        losses.append(task.loss(target.model.train(), batch).item())
    return fmean(losses)


def write_rows(name: str, rows: Sequence[Any], folder: Path, unprinted: Sequence[str] = ()) -> None:
    """Write dataclasses as CSV with their provenance in a file beside it, and print them without some columns."""
    # The commit that it was run from, before its files change the tree.
    provenance = {"commit": commit(), "versions": versions(), "machine": machine(), "arguments": sys.argv[1:]}
    folder.mkdir(parents=True, exist_ok=True)
    entries = [asdict(row) for row in rows]
    shown = [
        {k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in entry.items()} for entry in entries
    ]
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(entries[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(shown)
    (folder / f"{name}.json").write_text(json.dumps(provenance, indent=1) + "\n")
    printed = [column for column in entries[0] if column not in unprinted]
    table = Table(*printed, title=name)
    for entry in shown:
        table.add_row(*(entry[column] for column in printed))
    Console().print(table)


def plot_curves(name: str, curves: Mapping[str, Sequence[Sequence[float]]], folder: Path, label: str) -> None:
    """Draw the mean over the seeds of each variant's smoothed curve."""
    smoothed = {
        variant: [
            fmean(fmean(run[max(0, end - SMOOTHING) : end]) for run in runs)
            for end in range(1, len(runs[0]) + 1)
        ]
        for variant, runs in curves.items()
    }
    plot_lines(
        name, {key: (range(len(line)), line) for key, line in smoothed.items()}, folder, "update", label
    )


def plot_lines(
    name: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    folder: Path,
    x: str,
    y: str,
    logarithmic: bool = False,
) -> None:
    """Draw one figure of labelled lines into ``NAME.png``."""
    figure = Figure(figsize=(8, 4), layout="constrained", dpi=80)
    axes = figure.subplots()
    palette = colormaps["tab10" if len(lines) <= 10 else "tab20"]
    axes.set_prop_cycle(color=palette(range(palette.N)))
    for variant, (positions, values) in lines.items():
        axes.plot(positions, values, label=variant, marker="o" if len(values) < 12 else None, markersize=3)
    if logarithmic:
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    folder.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(folder / f"{name}.png")
