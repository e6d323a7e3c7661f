"""The command line of meta-training, shared by ``scripts/train_ghn.py`` and ``ghn train``."""

import math
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from ghn.console import settings_object


def train_command(
    output: Annotated[Path, typer.Argument(help="Folder for the state, the log and the checkpoint.")],
    images: Annotated[
        str | None,
        typer.Option(
            metavar="ID|DIR",
            help="Hub id, folder or 'digits'; '' for none.  [default: digits, if --text is '']",
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="ID|DIR", help="Hub id, folder or 'python-stdlib'; '' for none.  [default: python-stdlib]"
        ),
    ] = None,
    tokenizers: Annotated[
        list[str] | None,
        typer.Option(
            "--tokenizer",
            metavar="ID|DIR",
            help="bytes, hub id or folder; repeat for several.  [default: bytes]",
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(metavar="N", help="Side of the images, in pixels.")
    ] = None,
    sequence_length: Annotated[int | None, typer.Option(metavar="N", help="Tokens of a text.")] = None,
    scale: Annotated[
        str | None, typer.Option(metavar="NAME", help="Sizes of the architectures: small or full.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(metavar="NAME", help="regression, trajectory, after_k or step0.")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Updates of the hypernetwork.")] = None,
    targets_per_step: Annotated[
        int | None, typer.Option(metavar="N", help="Targets per update, over all processes.")
    ] = None,
    inner_steps: Annotated[
        tuple[int, int] | None, typer.Option(metavar="FROM TO", help="Training steps of a target.")
    ] = None,
    lr: Annotated[float | None, typer.Option(metavar="RATE", help="Peak learning rate.")] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="KIND", help="fp32, or bf16 for the targets.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Keys everything random.")] = None,
    settings: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|JSON",
            help="Any of MetaTrainConfig's settings, such as an earlier run's metatrain.json; other options win.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto or cpu.")] = "auto",
    trackers: Annotated[
        list[str] | None,
        typer.Option("--tracker", metavar="NAME", help="tensorboard, wandb …; repeat for several."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Processes that draw networks ahead.  [default: on a GPU up to 8, else 0]"
        ),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option(metavar="S", help="Save and stop after this long.")
    ] = math.inf,
) -> None:
    """Meta-train a hypernetwork; run again with the same arguments to go on after an interruption.

    With several GPUs: accelerate launch scripts/train_ghn.py …, with the same options; with several processes on a CPU:
    torchrun --standalone --nproc-per-node=2 scripts/train_ghn.py … --device cpu.
    """
    given = {name: value for name, value in locals().items() if value is not None}

    from ghn.metatrain.config import MetaTrainConfig
    from ghn.metatrain.loop import metatrain
    from ghn.metatrain.progress import first_process, update_bar

    names = {entry.name for entry in fields(MetaTrainConfig)}
    values = {**settings_object(settings), **{name: value for name, value in given.items() if name in names}}
    config = MetaTrainConfig.from_dict(values)
    named = images or config.images != MetaTrainConfig.images
    if config.images and named and not config.learns_from_images and first_process():
        scope = '{"ghn": {"decoder": {"scope": "edges"}}}'
        print(
            f"{config.images} is left out: beside text nothing is learned from images, unless you ask for it: "
            f"--settings '{scope}'",
            file=sys.stderr,
        )
    with update_bar(config.steps) as progress:
        metatrain(config, output, max_seconds, progress, device, trackers or (), workers)
    if first_process():
        print(f"checkpoint in {output / 'checkpoint'}")
