"""Where the time of a meta-training update goes: drawing targets, the hypernetwork, the targets' own training.

    python benchmarks/metatrain.py
    python benchmarks/metatrain.py --preset gpu --images uoft-cs/cifar10

Writes benchmarks/results/metatrain-PRESET.json: seconds and shares of each phase, averaged over the updates after the
first pass over the networks (tracing is paid once a network), and of that first pass apart.
"""

import json
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ghn.environment import commit, machine, versions
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.loop import metatrain
from ghn.metatrain.update import PHASES

RESULTS = Path(__file__).parent / "results"

PRESETS = {
    "cpu": MetaTrainConfig(networks=4, steps=16, inner_steps=(32, 32), save_every=1000),
    "gpu": MetaTrainConfig(
        networks=16,
        steps=48,
        scale="full",
        image_size=32,
        sequence_length=128,
        targets_per_step=8,
        inner_steps=(64, 64),
        inner_batch_size=128,
        precision="bf16",
        save_every=1000,
    ),
}


def phases(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean seconds of each phase of an update, of the rest, and of the whole."""
    seconds = {phase: fmean(row[f"{phase}_seconds"] for row in rows) for phase in PHASES}
    whole = fmean(row["seconds"] for row in rows)
    return {**seconds, "optimizer and average": whole - sum(seconds.values()), "whole": whole}


def main(
    preset: Annotated[str, typer.Option(help="cpu or gpu")] = "cpu",
    images: Annotated[str, typer.Option(help="Hub id, folder or 'digits'.")] = "digits",
    text: Annotated[str, typer.Option(help="Hub id, folder or 'python-stdlib'.")] = "python-stdlib",
    output: Path = RESULTS,
) -> None:
    """Measure one preset."""
    config = MetaTrainConfig.from_dict({**PRESETS[preset].to_dict(), "images": images, "text": text})
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        metatrain(config, Path(folder), progress=lambda done, row: rows.append(row))
    first = len(rows) // 2
    found = {"first pass": phases(rows[:first]), "later": phases(rows[first:])}
    shares = {name: {k: v / times["whole"] for k, v in times.items()} for name, times in found.items()}
    table = Table("seconds an update (share)", *found)
    for phase in found["later"]:
        table.add_row(phase, *(f"{found[name][phase]:.3f} ({shares[name][phase]:.0%})" for name in found))
    Console().print(table)
    settings = {name: value for name, value in config.to_dict().items() if name not in ("images", "text")}
    result = {
        "seconds": found,
        "shares": shares,
        "settings": settings,
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / f"metatrain-{preset}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
