"""Evaluate arms over held-out architectures, in a folder that later calls go on with."""

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ghn.arms import needs_checkpoint
from ghn.environment import commit, machine, versions
from ghn.errors import ConfigError, OutputError
from ghn.evaluate.config import ARMS, SOURCES, EvaluateConfig, cases
from ghn.evaluate.report import write_evaluation
from ghn.evaluate.run import check_cases, evaluate_case, outcome_of
from ghn.finetune.run_folder import RunFolder
from ghn.shortcut import load_hypernetwork
from ghn.spaces.held_out import VERSION

SETTINGS = "evaluation.json"

_SHARED = (
    "seeds",
    "lr",
    "image_size",
    "sequence_length",
    "tokenizer",
    "image_batch",
    "text_batch",
    "steps",
    "transfer_steps",
    "eval_samples",
    "optimizer",
    "precision",
)
"""Settings that all runs of a folder have in common."""


def evaluate(
    config: EvaluateConfig,
    folder: Path,
    preset: str = "cpu",
    models: str = "*",
    limit_models: int | None = None,
    part: tuple[int, int] = (1, 1),
) -> None:
    """Train every arm on every case that the folder doesn't have, and write tables and page after each.

    Args:
        config: What to evaluate. Mistakes in it show before anything is trained.
        folder: For runs and results.
        preset: What the configuration was made from, for the record.
        models: Shell pattern of the names of models.
        limit_models: At most so many of them, the smallest.
        part: Number and count of processes that share the models.

    Raises:
        GhnError: A kind of it for every mistake: nothing to evaluate, data or a checkpoint that can't be used, runs
            with other settings in the folder.
    """
    if limit_models is not None and limit_models < 1:
        raise ConfigError(f"--limit-models is {limit_models}; expected 1 or more")
    selection = cases(config, models, limit_models)
    check_cases(config, selection)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} can't be a folder ({error.strerror}); choose another") from error
    record = _settings(config, preset, folder)
    # Tables keep what earlier calls have done: on data sets and larger models that this one leaves out.
    sources = {name: record["config"][name] for name in SOURCES}
    all_cases = cases(replace(config, max_parameters=sys.maxsize, **sources))
    names = list(dict.fromkeys(case.name for case in selection))
    number, count = part
    for case in (case for case in selection if names.index(case.name) % count == number - 1):
        evaluate_case(config, case, folder)
        outcomes = [outcome for other in all_cases if (outcome := outcome_of(config, other, folder))]
        write_evaluation(outcomes, record, RunFolder(folder))


def _settings(config: EvaluateConfig, preset: str, folder: Path) -> dict[str, Any]:
    """Settings and provenance; refuses a folder whose runs had others, or another hypernetwork."""
    runs = RunFolder(folder, "choose another output folder")
    before = runs.read(SETTINGS, "delete it, and finished runs are found again")
    now, earlier = config.to_dict(), before.get("config", {})
    for name, value in earlier.items():
        if name in SOURCES:
            now[name] = (
                now[name] or value
            )  # its results stay in the tables, whether this call has the data set or not
        if name in (*SOURCES, *_SHARED) and value and now[name] != value:
            raise ConfigError(
                f"{folder} holds runs with {name}={value}, now it is {now[name]}; repeat the first command's "
                "options, or choose another output folder"
            )
    for name in ARMS:  # earlier calls' arms stay in the tables, whether this one has them or not
        now[name] = list(dict.fromkeys([*earlier.get(name, []), *now[name]]))
    # Its checks refuse what can't be beside the data of earlier calls.
    replace(config, **{name: now[name] for name in SOURCES})
    digest = before.get("checkpoint_digest")
    transfer = config.transfer_images or config.transfer_text
    if any(map(needs_checkpoint, (*config.arms, *(config.transfer_arms if transfer else ())))):
        fingerprint = load_hypernetwork(config.checkpoint).fingerprint()
        if digest not in (None, fingerprint):
            raise ConfigError(f"{folder} holds runs of another checkpoint; choose another output folder")
        digest = fingerprint
    settings = {
        "preset": preset,
        "held_out_version": VERSION,
        "config": now,
        "checkpoint_digest": digest,
        "commits": list(dict.fromkeys([*before.get("commits", []), commit()])),
        "versions": versions(),
        "machine": machine(),
        "started": before.get("started", datetime.now(UTC).isoformat(timespec="seconds")),
    }
    runs.write_json(SETTINGS, settings)
    return settings
