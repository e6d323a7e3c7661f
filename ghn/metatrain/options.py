"""The command line of meta-training: every setting of ``MetaTrainConfig`` is an option of ``ghn train``."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from ghn.console import json_object, settings_object
from ghn.metatrain.config import GROUPS, MetaTrainConfig
from ghn.options import given_options, with_options


@with_options(*GROUPS.values(), MetaTrainConfig, without=GROUPS)
def train_command(
    output: Annotated[Path, typer.Argument(help="Folder for the state, the log, curves and the checkpoint.")],
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Run or checkpoint to begin with; what it has no slots for begins as the base.",
        ),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option(metavar="S", help="Save and stop after this long.")
    ] = math.inf,
    trackers: Annotated[
        list[str] | None,
        typer.Option("--tracker", metavar="NAME …", help="tensorboard, wandb …"),
    ] = None,
    settings: Annotated[
        str | None,
        typer.Option(metavar="FILE|JSON", help="Such as an earlier run's metatrain.json; options win."),
    ] = None,
    **options: Any,
) -> None:
    """Meta-train a hypernetwork; run again with the same arguments to go on after an interruption.

    With several processes: torchrun --standalone --nproc-per-node=2 scripts/train_ghn.py …, with the same options.
    """
    from ghn.metatrain.progress import first_process, training_progress
    from ghn.metatrain.run import CHECKPOINT, metatrain

    given = given_options(options)
    if "objective_settings" in given:
        given["objective_settings"] = json_object(given["objective_settings"], "--objective-settings")
    config = MetaTrainConfig.from_dict({**settings_object(settings), **given})
    try:
        with training_progress(config.optimizer.updates) as progress:
            metatrain(config, output, max_seconds, start, progress, trackers or ())
    except KeyboardInterrupt:
        if first_process():
            print(f"the same command goes on from what {output} has saved")
        raise
    if first_process():
        print(f"checkpoint in {output / CHECKPOINT}")


def merge_command(
    parts: Annotated[
        list[Path], typer.Argument(metavar="PATH …", help="Runs, their tables, or checkpoints with slots.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the new checkpoint.")],
) -> None:
    """Put what several runs have learned, such as one from images and one from text, into one checkpoint.

    Of a kind of place that several have slots for, the last one's are taken.
    """
    from ghn.metatrain.tables import hypernetwork, load_tables, merge

    bank = merge([load_tables(path) for path in parts])
    hypernetwork(bank).save_pretrained(out)
    print(f"checkpoint in {out}: {', '.join(bank.families)}")
