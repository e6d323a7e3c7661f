"""Arms × seeds × learning rates, under equal conditions."""

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ghn.apply.rules import own_rules
from ghn.arms import needs_checkpoint
from ghn.base import registered
from ghn.checkpoints import DEFAULT_CHECKPOINT
from ghn.environment import commit, machine, versions
from ghn.errors import ConfigError
from ghn.finetune.choose import batches_of, make_task
from ghn.finetune.config import CompareConfig
from ghn.finetune.loop import Budget, make_accelerator, train_run
from ghn.finetune.report import write_report
from ghn.finetune.results import Results
from ghn.finetune.run import Run
from ghn.finetune.run_folder import ComparisonFolder, Key, RunFolder
from ghn.finetune.runs import Runs
from ghn.finetune.task import ModelTask
from ghn.shortcut import load_hypernetwork


def compare(config: CompareConfig) -> Results:
    """Fine-tune one model on one data set from several initializations, and say which is best.

    All arms share construction, data order, budget, seeds and the grid of learning rates; each is summarized at its own
    best rate. Every run is saved when it ends. Started by ``accelerate launch``, all processes share the work of each
    run, and the first writes.

    Args:
        config: What to compare. Mistakes in it show before anything is trained.

    Returns:
        What was also written to the output folder: ``results.json``, ``curves.csv``, ``curves.png``, ``report.html``.

    Raises:
        GhnError: A kind of it for every mistake: unknown names, data that doesn't fit the model, a folder that can't be
            written, a configuration that differs from that of the comparison to resume.
    """
    accelerator = make_accelerator(config)
    task = make_task(config)
    steps, batch_size = batches_of(config, task)
    if batch_size % accelerator.num_processes:
        raise ConfigError(
            f"--batch-size {batch_size} can't be shared by {accelerator.num_processes} processes; use a multiple of it"
        )
    budget = Budget.of(config, task, steps, batch_size)
    parameters = task.check()
    checkpoint = ""
    if any(map(needs_checkpoint, config.inits)):
        checkpoint = load_hypernetwork(config.checkpoint).fingerprint()
    folder = ComparisonFolder(config, task.dataset, checkpoint) if accelerator.is_main_process else None
    make = partial(train_run, task, config, budget, accelerator)
    runs = Runs(make, steps, folder, _finished_runs(folder), shown=accelerator.is_main_process)
    with registered(*own_rules(config.rules)):
        # Arms innermost: an interrupted comparison has whole seeds to look at.
        runs.get([(init, seed, lr) for seed in config.seeds for lr in config.lr for init in config.inits])
    results = Results(
        task=task.name,
        metric_name=task.metric_name,
        model=task.model,
        model_kwargs=dict(config.model_kwargs),
        model_arguments=task.model_kwargs,
        parameters=parameters,
        dataset=task.dataset,
        budget={"steps": steps, "batch_size": batch_size},
        config=config.identity(),
        settings=_settings(config, task, budget, accelerator),
        runs=tuple(
            runs.get([(init, seed, lr) for init in config.inits for lr in config.lr for seed in config.seeds])
        ),
        provenance=_provenance(accelerator, folder),
        output_dir=str(folder.path) if folder else "",
    )
    if folder:
        write_report(results, folder)
    return results


def _finished_runs(folder: RunFolder | None) -> dict[Key, Run]:
    """What the first process finds in the folder, in every process."""
    messages = [folder.finished() if folder else None]
    broadcast_object_list(messages)
    return messages[0] or {}


def _settings(
    config: CompareConfig, task: ModelTask, budget: Budget, accelerator: Accelerator
) -> dict[str, Any]:
    values = {
        **config.identity(),
        **task.settings,
        **asdict(budget),
        "model": task.model,
        "model_kwargs": task.model_kwargs,
        "dataset": task.dataset,
        "device": str(accelerator.device),
    }
    if any(map(needs_checkpoint, config.inits)):
        values["checkpoint"] = config.checkpoint or DEFAULT_CHECKPOINT
    return {name: value for name, value in values.items() if value is not None}


def _provenance(accelerator: Accelerator, folder: ComparisonFolder | None) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "commit": commit(),
        "versions": versions(),
        "device": str(accelerator.device),
        "started": folder.started if folder else now,
        "finished": now,
        "processes": accelerator.num_processes,
        "machine": machine(),
    }
