"""The command line of ``scripts/evaluate_init.py``."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown

from ghn.arms import needs_checkpoint
from ghn.console import run_app, settings_object
from ghn.environment import commit, machine, versions
from ghn.errors import ConfigError, OutputError
from ghn.evaluate.config import ArmsConfig, BudgetsConfig, EvaluateConfig, HeldOutConfig, cases
from ghn.evaluate.report import write_evaluation
from ghn.evaluate.run import check_cases, evaluate_case, outcome_of
from ghn.finetune.options import METAVARS as COMPARE_METAVARS
from ghn.finetune.run_folder import RunFolder
from ghn.options import given_options, with_options
from ghn.shortcut import load_hypernetwork
from ghn.spaces.held_out import VERSION

SETTINGS = "evaluation.json"

_SOURCES = ("images", "text", "transfer_images", "transfer_text")
_ARMS = ("arms", "transfer_arms")
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


METAVARS = {
    **dict.fromkeys(_SOURCES, "ID|DIR"),
    **dict.fromkeys(_ARMS, "ARM …"),
    **{name: COMPARE_METAVARS[name] for name in ("tokenizer", "checkpoint", "lr", "precision")},
}


@with_options(
    HeldOutConfig,
    ArmsConfig,
    BudgetsConfig,
    EvaluateConfig,
    flags={"arms": "inits", "transfer_arms": "transfer-inits"},
    metavars=METAVARS,
)
def evaluate_command(
    output: Annotated[Path, typer.Argument(help="Folder for runs and results; call again to go on.")],
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="cpu or gpu; the defaults below are cpu's.")
    ] = "cpu",
    models: Annotated[
        str, typer.Option(metavar="PATTERN", help="Shell pattern of names such as 'vit-*' or '*x384'.")
    ] = "*",
    limit_models: Annotated[int | None, typer.Option(metavar="N", help="The smallest alone.")] = None,
    part: Annotated[
        str, typer.Option(metavar="K/N", help="This of N processes that share the work.")
    ] = "1/1",
    settings: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|JSON",
            help="Settings by their names in EvaluateConfig, like '{\"image_size\": 32}'; options win.",
        ),
    ] = None,
    **options: Any,
) -> None:
    """Compare initializations over the held-out architectures, each arm at its own best rate of one grid."""
    config = EvaluateConfig.preset(preset, **{**settings_object(settings), **given_options(options)})
    if limit_models is not None and limit_models < 1:
        raise ConfigError(f"--limit-models is {limit_models}; expected 1 or more")
    chosen = cases(config, models, limit_models)
    number, count = _part(part)
    check_cases(config, chosen)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output} can't be a folder ({error.strerror}); choose another") from error
    record = _settings(config, preset, output)
    # Tables keep what earlier calls have done: on data sets and larger models that this one leaves out.
    sources = {name: record["config"][name] for name in _SOURCES}
    listed = cases(replace(config, max_parameters=sys.maxsize, **sources))
    names = list(dict.fromkeys(case.name for case in chosen))
    for case in (case for case in chosen if names.index(case.name) % count == number - 1):
        evaluate_case(config, case, output)
        known = [outcome for other in listed if (outcome := outcome_of(config, other, output))]
        write_evaluation(known, record, RunFolder(output))
    if (output / "table.md").exists():
        Console().print(Markdown((output / "table.md").read_text()))
        Console().print(
            f"Results are in {output}: report.html, table.md, models.csv, verdicts.csv, curves.csv, results.json, "
            "plots"
        )


def main(arguments: Sequence[str]) -> None:
    """Run the command as a program: a user's mistake is one line on stderr and exit code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(evaluate_command)
    run_app(app, arguments)


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"--part is {text!r}; expected K/N with K from 1 to N, such as 1/2")
    return int(number), int(count)


def _settings(config: EvaluateConfig, preset: str, folder: Path) -> dict[str, Any]:
    """Settings and provenance; refuses a folder whose runs had others, or another hypernetwork."""
    runs = RunFolder(folder, "choose another output folder")
    before = runs.read(SETTINGS, "delete it, and finished runs are found again")
    now, earlier = config.to_dict(), before.get("config", {})
    for name, value in earlier.items():
        if name in _SOURCES:
            now[name] = now[name] or value  # a data set may be left out, or added
        if name in (*_SOURCES, *_SHARED) and value and now[name] != value:
            raise ConfigError(
                f"{folder} holds runs with {name}={value}, now it is {now[name]}; repeat the first command's "
                "options, or choose another output folder"
            )
    for name in _ARMS:  # an arm may be added, or left out
        now[name] = list(dict.fromkeys([*earlier.get(name, []), *now[name]]))
    # Its checks refuse what can't be beside the data of earlier calls.
    replace(config, **{name: now[name] for name in _SOURCES})
    digest = before.get("checkpoint_digest")
    transfer = config.transfer_images or config.transfer_text
    if any(map(needs_checkpoint, (*config.arms, *(config.transfer_arms if transfer else ())))):
        found = load_hypernetwork(config.checkpoint).fingerprint()
        if digest not in (None, found):
            raise ConfigError(f"{folder} holds runs of another checkpoint; choose another output folder")
        digest = found
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
