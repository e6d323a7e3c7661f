"""The command line of ``scripts/evaluate_init.py``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown

from ghn.console import run_command, settings_object
from ghn.errors import ConfigError
from ghn.evaluate.config import ARMS, SOURCES, ArmsConfig, BudgetsConfig, EvaluateConfig, HeldOutConfig
from ghn.evaluate.evaluate import evaluate
from ghn.finetune.options import METAVARS as COMPARE_METAVARS
from ghn.options import given_options, with_options

METAVARS = {
    **dict.fromkeys(SOURCES, "ID|DIR"),
    **dict.fromkeys(ARMS, "ARM …"),
    **{name: COMPARE_METAVARS[name] for name in ("tokenizer", "checkpoint", "rules", "lr", "precision")},
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
    evaluate(config, output, preset, models, limit_models, _part(part))
    if (output / "table.md").exists():
        Console().print(Markdown((output / "table.md").read_text()))
        Console().print(
            f"Results are in {output}: report.html, table.md, models.csv, verdicts.csv, curves.csv, results.json, "
            "plots"
        )


def main(arguments: Sequence[str]) -> None:
    """Run the command as a program."""
    run_command(evaluate_command, arguments)


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"--part is {text!r}; expected K/N with K from 1 to N, such as 1/2")
    return int(number), int(count)
