"""Meta-train a hypernetwork on images and text; run again with the same arguments to go on after an interruption.

The shipped checkpoint was made by:  python scripts/train_ghn.py runs/ghn-small --images uoft-cs/cifar10 --text DIR
(see scripts/LOG.md for the data and what it reached).
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ghn.console import one_line_errors
from ghn.metatrain import MetaTrainConfig, metatrain

DEFAULTS = MetaTrainConfig()


def main(
    output: Annotated[Path, typer.Argument(help="Folder for state, log and checkpoint.")],
    images: Annotated[str, typer.Option(help="Hub id, folder or 'digits'; '' for none.")] = DEFAULTS.images,
    text: Annotated[
        str, typer.Option(help="Hub id, folder or 'python-stdlib'; '' for none.")
    ] = DEFAULTS.text,
    image_size: Annotated[int, typer.Option(help="Side of the images, in pixels.")] = DEFAULTS.image_size,
    steps: Annotated[int, typer.Option(help="Updates of the hypernetwork.")] = DEFAULTS.steps,
    targets_per_step: Annotated[
        int, typer.Option(help="Architectures per update.")
    ] = DEFAULTS.targets_per_step,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = DEFAULTS.lr,
    seed: Annotated[int, typer.Option(help="Keys everything random.")] = DEFAULTS.seed,
    max_seconds: Annotated[float, typer.Option(help="Save and stop after this long.")] = float("inf"),
) -> None:
    """Meta-train a hypernetwork."""
    config = MetaTrainConfig(
        images=images,
        text=text,
        image_size=image_size,
        steps=steps,
        targets_per_step=targets_per_step,
        lr=lr,
        seed=seed,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("meta-training", total=steps)

        def show(done: int, row: dict[str, float]) -> None:
            text = f"loss {row['loss']:.4f} target {row['first_loss']:.2f} → {row['last_loss']:.2f}"
            bar.update(task, completed=done, description=text)

        metatrain(config, output, max_seconds, show)
    typer.echo(f"checkpoint in {output / 'checkpoint'}")


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
