"""Meta-training: sample targets, train them from their predicted weights, learn from where they went."""

import copy
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path

import torch
from accelerate import Accelerator

from ghn.errors import ConfigError, OutputError
from ghn.files import sweep, write_whole
from ghn.hypernetwork import GHN
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.graphs import GRAPHS
from ghn.metatrain.state import load_state, save_state
from ghn.metatrain.targets import Targets
from ghn.metatrain.tasks import load_tasks
from ghn.metatrain.update import Learner, share, update
from ghn.metatrain.workers import killed_workers_told, stream
from ghn.training import new_accelerator

LOG = "log.jsonl"
SETTINGS = "metatrain.json"
CHECKPOINT = "checkpoint"

MOST_WORKERS = 8
"""Processes that draw targets for one that learns, if nobody says how many."""

_REMEDY = "free some space or choose another output folder"

Progress = Callable[[int, dict[str, float]], None]
"""Called after every update with the number of updates done and their averages."""


def metatrain(
    config: MetaTrainConfig,
    folder: Path,
    max_seconds: float = math.inf,
    progress: Progress | None = None,
    device: str = "auto",
    trackers: Sequence[str] = (),
    workers: int | None = None,
) -> GHN:
    """Train a hypernetwork; go on where an earlier call with the same settings and folder stopped.

    Every random number is keyed by the seed and the update, so a run that was killed and resumed gives the same
    losses as one that was not (on the CPU to the last bit). Started by ``accelerate launch`` or ``torchrun``, the
    processes share the targets of each update, and the first writes.

    Args:
        config: Settings.
        folder: Gets the state, the settings, ``log.jsonl``, traced graphs and the checkpoint of the averaged weights.
        max_seconds: Save and return after about this long.
        progress: Told about every update, in the first process.
        device: 'auto' or 'cpu'.
        trackers: Names that accelerate knows, such as 'tensorboard' or 'wandb'; each package must be installed.
        workers: Processes that prepare targets ahead (build, trace, and draw what is random about their predictions),
            for each process that learns. None is as many as there are cores to spare, ``MOST_WORKERS`` at most, beside
            a GPU, which would wait for them else, and 0 beside a CPU, which has enough to do. Losses don't depend on
            it.

    Returns:
        The hypernetwork with averaged weights.

    Raises:
        OutputError: If the folder can't be written.
        ConfigError: If the folder holds a run with other settings or data, there are more processes than targets in
            an update, workers, a tracker or the precision can't be used, or a worker was killed.
    """
    started = time.monotonic()
    accelerator = _accelerator(config, folder, device, trackers)
    if accelerator.num_processes > config.targets_per_step:
        raise ConfigError(
            f"{accelerator.num_processes} processes share targets_per_step={config.targets_per_step} targets, so some "
            f"would have nothing to do; give it {accelerator.num_processes} or a multiple, or start fewer processes"
        )
    workers = _workers(workers, accelerator)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} can't be made: {error}; choose another output folder") from error
    tasks = load_tasks(config, accelerator.device)
    data = {name: task.examples.digest() for name, task in tasks.items()}
    learner = _learner(config, accelerator.device)
    done = load_state(folder, config, data, learner)
    if accelerator.is_main_process:
        for place in (folder, folder / GRAPHS, folder / CHECKPOINT):
            sweep(place)
        write_whole(folder / SETTINGS, json.dumps(config.to_dict(), indent=2) + "\n", _REMEDY)
        # The saved state doesn't include what came later.
        write_whole(folder / LOG, "".join(_lines(folder / LOG)[:done]), _REMEDY)
    accelerator.wait_for_everyone()  # nobody writes while another sweeps
    rows: list[dict[str, float]] = []
    if trackers:
        accelerator.init_trackers(
            "ghn",
            {name: str(value) for name, value in config.to_dict().items()},
            {"wandb": {"resume": "allow"}},  # goes on with the run that WANDB_RUN_ID names
        )
    places = ((step, number) for step in range(done, config.steps) for number in share(config, accelerator))
    targets = stream(Targets(config, tasks, folder / GRAPHS), places, workers)
    with closing(targets), killed_workers_told():
        for step in range(done, config.steps):
            row = update(learner, targets, tasks, config, accelerator, step)
            accelerator.log(row, step)  # after a kill, what wasn't saved is done and logged again
            if accelerator.is_main_process:
                rows.append(row)
                if progress is not None:
                    progress(step + 1, row)
            out_of_time = _any(accelerator, time.monotonic() - started > max_seconds)
            due = (step + 1) % config.save_every == 0 or step + 1 == config.steps or out_of_time
            if due and accelerator.is_main_process:
                _append(folder / LOG, rows)
                save_state(folder, step + 1, config, data, learner)
                rows.clear()
            if out_of_time:
                break
    if accelerator.is_main_process:
        learner.average.save_pretrained(folder / CHECKPOINT)
    accelerator.end_training()
    return learner.average


def _learner(config: MetaTrainConfig, device: torch.device) -> Learner:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = GHN(config.ghn).to(device)
    groups = [
        {"params": [parameter for _, parameter in group], "pace": config.trust_pace if trust else 1.0}
        for trust, group in groupby(
            net.named_parameters(), lambda named: named[0].startswith("decoder.statistics.")
        )
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.95), weight_decay=1e-4)
    return Learner(net, copy.deepcopy(net).eval(), optimizer)


def _accelerator(config: MetaTrainConfig, folder: Path, device: str, trackers: Sequence[str]) -> Accelerator:
    if device not in ("auto", "cpu"):
        raise ConfigError(
            f"unknown device {device!r}; expected 'auto' or 'cpu' (choose among GPUs with CUDA_VISIBLE_DEVICES)"
        )
    precision = "no" if config.precision == "fp32" else config.precision
    try:
        accelerator = new_accelerator(
            cpu=device == "cpu",
            mixed_precision=precision,
            log_with=list(trackers) or None,
            project_dir=folder,
        )
    except (ValueError, ImportError) as error:
        raise ConfigError(
            f"precision {config.precision!r} or trackers {list(trackers)} can't be used here: {error}"
        ) from error
    missing = set(trackers) - {str(tracker) for tracker in accelerator.log_with}
    if missing:  # accelerate leaves them out in silence
        raise ConfigError(
            f"no package for tracker {sorted(missing)[0]!r}; install it, or leave the tracker out"
        )
    return accelerator


def _workers(asked: int | None, accelerator: Accelerator) -> int:
    if asked is not None:
        if asked < 0:
            raise ConfigError(f"workers is {asked}; expected 0 or more")
        if asked and "fork" not in multiprocessing.get_all_start_methods():
            raise ConfigError(
                f"workers={asked} needs processes that are forked, which this system has not; use 0"
            )
        return asked
    if accelerator.device.type == "cpu" or sys.platform != "linux":
        return 0
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    spare = len(os.sched_getaffinity(0)) // beside - 1
    return max(0, min(MOST_WORKERS, spare))


def _any(accelerator: Accelerator, flag: bool) -> bool:
    """Whether any process says so: all must stop at the same update."""
    return bool(accelerator.reduce(torch.tensor([float(flag)], device=accelerator.device), "sum"))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True) if path.exists() else []


def _append(path: Path, rows: Sequence[dict[str, float]]) -> None:
    try:
        with path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    except OSError as error:
        raise OutputError(f"can't write {str(path)!r} ({error.strerror}); {_REMEDY}") from error
