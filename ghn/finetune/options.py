"""The command line of a comparison, shared by ``scripts/init_and_finetune.py`` and ``ghn compare``."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from ghn.console import json_object, run_command
from ghn.errors import ConfigError
from ghn.finetune.config import GROUPS, CompareConfig
from ghn.options import given_options, with_options

METAVARS = {
    "model": "SPEC",
    "dataset": "ID|DIR|NAME",
    "task": "FILE.py:TASK",
    "tokenizer": "ID|DIR|bytes",
    "inits": "ARM …",
    "rules": "FILE.py:RULE …",
    "lr": "RATE …",
    "epochs": "N",
    "checkpoint": "DIR|ID",
    "warmup": "SHARE",
    "clip": "NORM",
    "precision": "KIND",
    "output_dir": "DIR",
}
"""What ``--help`` calls values that are more than a name or a number."""


@with_options(*GROUPS, CompareConfig, metavars=METAVARS)
def compare_command(
    without: Annotated[
        list[str],
        typer.Option(
            metavar="RULE …",
            help="Adds an arm for each of ghn and base that leaves these initialization rules out.",
        ),
    ] = [],  # noqa: B006 (typer's own way to say it)
    **options: Any,
) -> None:
    """Fine-tune a model from several initializations under equal conditions, and say which is best.

    Without options: a small vision model on handwritten digits, predicted weights against random ones, a few minutes.
    """
    settings = compare_settings(options)
    if without:
        inits = settings.get("inits", CompareConfig.inits)
        settings["inits"] = (*inits, *_ablations(inits, without))
    config = CompareConfig(**settings)

    from ghn.finetune.compare import compare
    from ghn.finetune.report import show

    show(compare(config))


def compare_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of ``CompareConfig`` that options of a command line say.

    Raises:
        ConfigError: If the model's arguments are no JSON.
    """
    settings = given_options(options)
    if "model_kwargs" in settings:
        settings["model_kwargs"] = json_object(settings["model_kwargs"], "--model-kwargs")
    return settings


def _ablations(inits: Sequence[str], without: Sequence[str]) -> list[str]:
    """Arms like those of a comparison, without some rules."""
    from ghn.apply.rules import ablation
    from ghn.arms import NEEDS_CHECKPOINT

    arms = [ablation(arm, without) for arm in inits if arm in NEEDS_CHECKPOINT]
    if not arms:
        raise ConfigError("--without is for the arms ghn and base; name one of them in --inits")
    return arms


def main(arguments: Sequence[str]) -> None:
    """Run the command as a program."""
    run_command(compare_command, arguments)
