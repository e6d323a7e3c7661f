"""Meta-training: slots of weights that networks share learn from the networks that are cut out of them.

The loop of a weight-sharing supernet (Once-for-All, https://arxiv.org/abs/1908.09791), over all families of a target
space at once. Its budget is counted in target-images: updates x targets x examples.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ghn.errors import ConfigError, OutputError
from ghn.files import sweep, write_whole
from ghn.hypernetwork import GHN
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.cutting import Noise
from ghn.metatrain.data import digest, load_tasks
from ghn.metatrain.graph_store import GRAPHS, GraphStore
from ghn.metatrain.log import LOG, append, truncate
from ghn.metatrain.memory import keep_freed_memory
from ghn.metatrain.objectives import OBJECTIVES, Objective
from ghn.metatrain.plot import plot
from ghn.metatrain.processes import Processes
from ghn.metatrain.progress import Progress
from ghn.metatrain.sampler import Sampler
from ghn.metatrain.start import first_tables
from ghn.metatrain.state import TrainState, load_state, save_state
from ghn.metatrain.tables import TABLES, hypernetwork, save_tables
from ghn.metatrain.update import Clock, Ingredients, update
from ghn.metatrain.validation import validate
from ghn.spaces import SCALES, ImageSpace, TargetSpace, TextSpace
from ghn.tasks import LanguageModeling, Task
from ghn.training import new_accelerator
from ghn.user_code import find, make

SETTINGS = "metatrain.json"
CHECKPOINT = "checkpoint"

_REMEDY = "free some space or choose another output folder"


def metatrain(
    config: MetaTrainConfig,
    folder: Path,
    max_seconds: float = math.inf,
    start: Path | None = None,
    progress: Progress | None = None,
    trackers: Sequence[str] = (),
) -> GHN:
    """Train slots; go on where an earlier call with the same settings and folder stopped.

    Every random number is keyed by the seed and the update, so a run that was killed and resumed gives the same tables
    as one that was not, to the last bit. Started by ``torchrun``, the processes share the networks of each update, and
    the first writes.

    Args:
        config: Settings.
        folder: Gets the state, the settings, ``log.jsonl``, ``progress.png``, traced graphs, and, whenever the run
            validates or stops, the averaged tables and a checkpoint of them.
        max_seconds: Save and return after about this long.
        start: What to begin with: an earlier run's folder or tables, or a checkpoint; the rest begins as the base.
        progress: Told how far it is, in the first process.
        trackers: Names that accelerate knows, such as 'tensorboard' or 'wandb'; each package must be installed.

    Returns:
        The hypernetwork of the averaged tables.

    Raises:
        OutputError: If the folder can't be written.
        ConfigError: If the folder holds a run with other settings or data, or of an older format, the tables don't fit
            into memory, there are more processes than networks in an update, or a tracker can't be used.
        CheckpointError: If the state or what to start with can't be read.
        DataError: If there are no such data.
    """
    begun = time.monotonic()
    keep_freed_memory()
    accelerator = _accelerator(folder, trackers)
    processes = Processes(accelerator)
    if processes.count > config.optimizer.targets:
        raise ConfigError(
            f"{processes.count} processes share targets={config.optimizer.targets} networks of an update, so some "
            f"would have nothing to do; give it {processes.count} or a multiple, or start fewer processes"
        )
    progress = progress if progress is not None and processes.first else Progress()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} can't be made: {error}; choose another output folder") from error
    ingredients = prepare(config, folder, processes)
    data = {kind: digest(task) for kind, task in ingredients.tasks.items()}
    state = load_state(folder, config, data) or _begin(ingredients, start, progress)
    if state.done >= config.optimizer.updates:
        progress.note(
            f"the budget of {config.optimizer.updates} updates is spent ({state.seen / 1e6:.2f} M target-images); to "
            f"go on, begin another run with this one's tables: --start {folder}"
        )
    if processes.first:
        for place in (folder, folder / GRAPHS, folder / CHECKPOINT):
            sweep(place)
        write_whole(folder / SETTINGS, json.dumps(config.to_dict(), indent=2) + "\n", _REMEDY)
        truncate(folder / LOG, state.done)
    processes.gather([])  # nobody writes while another sweeps
    if trackers:
        settings = {name: str(value) for name, value in config.to_dict().items()}
        # wandb goes on with the run that WANDB_RUN_ID names.
        accelerator.init_trackers("ghn", settings, {"wandb": {"resume": "allow"}})
    rows: list[dict[str, Any]] = []

    def tell(row: dict[str, Any]) -> None:
        rows.append(row)
        progress.row(row)
        accelerator.log(_figures(row), state.done)  # after a kill, what wasn't saved is done and logged again

    clock = Clock()
    while state.done < config.optimizer.updates:
        tell(update(state, ingredients, clock))
        late = any(processes.gather([time.monotonic() - begun > max_seconds]))
        due = state.done == config.optimizer.updates or state.done % config.validate_every == 0
        if due:
            metrics = validate(state.average, ingredients.tasks, ingredients.samplers, processes)
            clock.lap("validate")
            seconds = dict(clock.seconds)
            tell({"update": state.done, "seen": state.seen, "validation": metrics, "seconds": seconds})
        if due or late or state.done % config.save_every == 0:
            if processes.first:
                append(folder / LOG, rows, _REMEDY)
                if due or late:  # before the state: killed in between, the next call does this update again
                    _publish(state, folder)
                save_state(folder, state, config, data)
            rows.clear()
            clock.lap("save")
        if late:
            break
    accelerator.end_training()
    return hypernetwork(state.average)


def _begin(ingredients: Ingredients, start: Path | None, progress: Progress) -> TrainState:
    """The state before the first update."""
    progress.note("tracing networks")
    for sampler in ingredients.samplers.values():
        sampler.trace(ingredients.processes)
    bank = first_tables(ingredients.samplers, ingredients.config.rank, start)
    numbers = sum(table.numel() for table in bank.parameters())
    progress.note(f"{len(bank.names)} slots, {numbers / 1e6:.2f} M numbers")
    return TrainState.of(bank, ingredients.config.optimizer)


def _publish(state: TrainState, folder: Path) -> None:
    """Write what others can use while the run goes on."""
    save_tables(state.average, folder / TABLES)
    hypernetwork(state.average).save_pretrained(folder / CHECKPOINT)
    plot(folder)


def prepare(config: MetaTrainConfig, folder: Path, processes: Processes) -> Ingredients:
    """Open the data of a run, and find its objective and networks.

    Args:
        config: Settings.
        folder: Of the run, where graphs are kept.
        processes: That share the work.
    """
    factory = find(config.objective, "objective", OBJECTIVES)
    objective = make(factory, config.objective, Objective, config.objective_settings)
    tasks = load_tasks(config.data)
    graphs = GraphStore(folder / GRAPHS)
    samplers = {
        kind: Sampler(config.sampling, task, spaces(config, task), graphs, config.seed)
        for kind, task in tasks.items()
    }
    noise = Noise(torch.Generator().manual_seed(config.seed))
    return Ingredients(config, tasks, samplers, objective, noise, processes)


def spaces(config: MetaTrainConfig, task: Task) -> list[TargetSpace]:
    """What the networks for a task are sampled from: the user's own space, or the library's small and full ones.

    Raises:
        ConfigError: If the user's has no method ``sample``.
    """
    data, own = config.data, config.sampling.space
    if own:
        return [make(find(own, "space"), own, TargetSpace)]
    if task.kind == "images":
        return [ImageSpace(scale=scale, image_size=data.image_size) for scale in SCALES]
    vocabulary = task.vocabulary if isinstance(task, LanguageModeling) else 384
    return [
        TextSpace(scale=scale, sequence_length=data.sequence_length, vocabulary=vocabulary)
        for scale in SCALES
    ]


def _accelerator(folder: Path, trackers: Sequence[str]) -> Accelerator:
    try:
        accelerator = new_accelerator(cpu=True, log_with=list(trackers) or None, project_dir=folder)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"trackers {list(trackers)} can't be used here: {error}") from error
    missing = set(trackers) - {str(tracker) for tracker in accelerator.log_with}
    if missing:  # accelerate leaves them out in silence
        raise ConfigError(
            f"no package for tracker {sorted(missing)[0]!r}; install it, or leave the tracker out"
        )
    return accelerator


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row, by names that trackers can plot."""
    if "validation" in row:
        return {f"validation/{family}": metric for family, metric in row["validation"].items()}
    losses = [loss for losses in row["loss"].values() for loss in losses]
    figures = {"seen": row["seen"], "norm": row["norm"]}
    return figures | ({f"loss/{row['task']}": sum(losses) / len(losses)} if losses else {})
