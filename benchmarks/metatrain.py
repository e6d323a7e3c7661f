"""Where the time of a meta-training update goes: drawing targets, the hypernetwork, the targets' own training.

    python benchmarks/metatrain.py
    python benchmarks/metatrain.py --preset gpu --images uoft-cs/cifar10 --no-count
    python benchmarks/metatrain.py --preset gpu --no-time --updates 4 --objective step0

Writes benchmarks/results/metatrain-PRESET.json. For an objective that trains its targets and for one that doesn't:
seconds and shares of each phase, averaged over the later half of the updates (when most networks have been traced), and
the first half's apart. Counts, which take no GPU: how many operations on tensors an update takes in each phase, views
aside (where kernels are small, their launches are what a GPU's time goes into), and floating-point operations of matrix
products and convolutions (where they are large, its time goes there).
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ghn.environment import commit, machine, versions
from ghn.hypernetwork import GHNConfig
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.loop import metatrain
from ghn.metatrain.update import PHASES, Tally

RESULTS = Path(__file__).parent / "results"

PRESETS = {
    "cpu": MetaTrainConfig(networks=4, steps=16, inner_steps=(32, 32), save_every=1000, ghn=GHNConfig()),
    "gpu": MetaTrainConfig(
        networks=8,
        steps=24,
        scale="full",
        image_size=32,
        sequence_length=128,
        targets_per_step=8,
        inner_steps=(16, 16),
        inner_batch_size=128,
        precision="bf16",
        save_every=1000,
        ghn=GHNConfig(),
    ),
}
"""Of images and texts, the hypernetwork with a learned part in both."""

OBJECTIVES = {"step0": 1, "trajectory": 4}
"""What the preset's number of updates is divided by for each."""


def halves(config: MetaTrainConfig, workers: int | None) -> dict[str, dict[str, float]]:
    """Mean seconds of each phase of an update, of the rest, and of the whole, in the first and the later half."""
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        metatrain(config, Path(folder), progress=lambda done, row: rows.append(row), workers=workers)
    half = len(rows) // 2
    return {"first half": _phases(rows[:half]), "later": _phases(rows[half:])}


def _phases(rows: list[dict[str, float]]) -> dict[str, float]:
    seconds = {phase: fmean(row[f"{phase}_seconds"] for row in rows) for phase in PHASES}
    whole = fmean(row["seconds"] for row in rows)
    return {**seconds, "optimizer and average": whole - sum(seconds.values()), "whole": whole}


class Operations(TorchDispatchMode):
    """Counts operations that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


def counts(config: MetaTrainConfig) -> dict[str, dict[str, float]]:
    """Operations and FLOPs of an update by phase, in updates like those of ``config``; apart, for it takes time."""
    found = {name: dict.fromkeys(PHASES, 0) for name in ("operations", "flops")}
    timed = Tally.timed

    @contextmanager
    def counted(self: Tally, phase: str, device: torch.device) -> Iterator[None]:
        # Operations inside, so that it sees what was asked for and not what counting FLOPs takes it apart into.
        with FlopCounterMode(display=False) as flops, Operations() as mode, timed(self, phase, device):
            yield
        found["operations"][phase] += mode.count
        found["flops"][phase] += flops.get_total_flops()

    with tempfile.TemporaryDirectory() as folder, patch.object(Tally, "timed", counted):
        metatrain(config, Path(folder), workers=0)
    return {
        name: {phase: count / config.steps for phase, count in each.items()} for name, each in found.items()
    }


def _shares(amounts: dict[str, dict[str, float]], whole: dict[str, float]) -> dict[str, dict[str, float]]:
    return {name: {k: v / whole[name] for k, v in each.items()} for name, each in amounts.items()}


def _show(
    what: str, amounts: dict[str, dict[str, float]], shares: dict[str, dict[str, float]], form: str
) -> None:
    """Print a table with a column for each objective."""
    table = Table(f"{what} an update (share)", *amounts)
    for phase in next(iter(amounts.values())):
        table.add_row(
            phase, *(f"{amounts[name][phase]:{form}} ({shares[name][phase]:.0%})" for name in amounts)
        )
    Console().print(table)


def main(
    preset: Annotated[str, typer.Option(help="cpu or gpu")] = "cpu",
    images: Annotated[str, typer.Option(help="Hub id, folder or 'digits'.")] = "digits",
    text: Annotated[str, typer.Option(help="Hub id, folder or 'python-stdlib'.")] = "python-stdlib",
    objective: Annotated[list[str], typer.Option(help="Once for each; both by default.")] = [*OBJECTIVES],  # noqa: B006
    updates: Annotated[int | None, typer.Option(help="The preset's by default.")] = None,
    workers: Annotated[int | None, typer.Option(help="As metatrain takes it.")] = None,
    time: Annotated[bool, typer.Option(help="Measure seconds.")] = True,
    count: Annotated[bool, typer.Option(help="Count operations.")] = True,
    output: Path = RESULTS,
) -> None:
    """Measure one preset."""
    config = MetaTrainConfig.from_dict({**PRESETS[preset].to_dict(), "images": images, "text": text})
    plans = {
        name: replace(config, objective=name, steps=(updates or config.steps) // OBJECTIVES[name])
        for name in objective
    }
    result: dict[str, Any] = {}
    if time:
        found = {name: halves(plan, workers) for name, plan in plans.items()}
        later = {name: times["later"] for name, times in found.items()}
        shares = _shares(later, {name: times["whole"] for name, times in later.items()})
        _show("seconds", later, shares, ".3f")
        result |= {"seconds": found, "shares": shares}
    if count:
        counted = {name: counts(plan) for name, plan in plans.items()}
        for what in ("operations", "flops"):
            amounts = {name: each[what] for name, each in counted.items()}
            _show(what, amounts, _shares(amounts, {n: sum(e.values()) for n, e in amounts.items()}), ".3g")
            result[what] = amounts
    settings = {name: value for name, value in config.to_dict().items() if name not in ("images", "text")}
    result |= {
        "updates": {name: plan.steps for name, plan in plans.items()},
        "settings": settings,
        "workers": workers,
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / f"metatrain-{preset}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
