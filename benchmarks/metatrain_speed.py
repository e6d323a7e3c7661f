"""Target-images a second of meta-training, and where the time of an update goes.

    python benchmarks/metatrain_speed.py
    python benchmarks/metatrain_speed.py --images uoft-cs/cifar10 --updates 500
    torchrun --standalone --nproc-per-node=2 benchmarks/metatrain_speed.py --name two-processes

Networks of scale small with 64 images each, whole matrices that begin as the base. Updates are counted after a warm-up,
in which networks are built; where the machine is busy, CPU seconds say what an idle one would give. Writes
benchmarks/results/metatrain-speed.json: one entry a name.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from ghn.environment import commit, machine, versions
from ghn.metatrain.config import DataConfig, MetaTrainConfig, OptimizerConfig, SamplingConfig
from ghn.metatrain.memory import keep_freed_memory
from ghn.metatrain.processes import Processes
from ghn.metatrain.run import prepare
from ghn.metatrain.start import first_tables
from ghn.metatrain.state import TrainState
from ghn.metatrain.update import PHASES, Clock, update
from ghn.training import new_accelerator

RESULTS = Path(__file__).parent / "results" / "metatrain-speed.json"


def main(
    images: Annotated[str, typer.Option(help="Images to learn from.")] = "digits",
    networks: Annotated[int, typer.Option(help="Architectures to draw from.")] = 150,
    updates: Annotated[int, typer.Option(help="To measure.")] = 300,
    warmup: Annotated[int, typer.Option(help="Updates before.")] = 100,
    targets: Annotated[int, typer.Option(help="Networks of an update, shared by all processes.")] = 2,
    name: Annotated[str, typer.Option(help="Of the entry.")] = "one-process",
) -> None:
    """Measure, print and save."""
    config = MetaTrainConfig(
        data=DataConfig(images=images),
        sampling=SamplingConfig(networks=networks, full_every=0),
        optimizer=OptimizerConfig(updates=warmup + updates, targets=targets),
    )
    keep_freed_memory()
    processes = Processes(new_accelerator(cpu=True))
    with tempfile.TemporaryDirectory() as folder:
        ingredients = prepare(config, Path(folder), processes)
        state = TrainState.of(first_tables(ingredients.samplers, config.rank, None), config.optimizer)
        for _ in range(warmup):
            update(state, ingredients, Clock())
        count, clock, start, cpu_seconds = state.seen, Clock(), time.perf_counter(), time.process_time()
        for _ in range(updates):
            update(state, ingredients, clock)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_seconds
    if not processes.first:
        return
    count = state.seen - count
    speed = count / seconds
    shares = {phase: clock.seconds[phase] / seconds for phase in PHASES if phase not in ("validate", "save")}
    table = Table("phase", "share", title=f"{speed:,.0f} target-images a second")
    for phase, share in shares.items():
        table.add_row(phase, f"{share:.1%}")
    Console().print(table)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[name] = {
        "target_images_per_second": round(speed, 1),
        "per_cpu_second_of_a_process": round(count / processes.count / cpu_seconds, 1),
        "shares": {phase: round(share, 4) for phase, share in shares.items()},
        "numbers": sum(table.numel() for table in state.bank.parameters()),
        "processes": processes.count,
        "threads": torch.get_num_threads(),
        "images": Path(images).name,
        "networks": networks,
        "updates": updates,
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
    }
    RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
