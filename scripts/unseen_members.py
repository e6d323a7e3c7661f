"""What do members of the target space that a hypernetwork was not trained on start with, family by family?

    python scripts/unseen_members.py unseen.csv --checkpoint checkpoints/ghn-slots

Each is predicted as ``ghn.init_`` does it, with all that was learned, beside its base and its own start; accuracy and
loss of 1,000 images, under batch statistics. Their draws are keyed unlike those of meta-training.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without installation

import pandas as pd
import typer

from ghn.console import run_command
from ghn.errors import ConfigError, did_you_mean
from ghn.evaluate.ranking import RankingConfig, judge_networks, kwargs_json, sample_networks
from ghn.files import write_whole
from ghn.spaces import LARGEST


def unseen(
    output: Annotated[Path, typer.Argument(help="CSV file for a row of each network.")],
    checkpoint: Annotated[
        str, typer.Option(metavar="DIR|ID", help="Hypernetwork that predicts.")
    ] = "ghn-slots",
    images: Annotated[str, typer.Option(metavar="ID|DIR", help="As it has seen them.")] = "uoft-cs/cifar10",
    image_size: Annotated[int, typer.Option(metavar="N", help="Side of the images, in pixels.")] = 16,
    members: Annotated[int, typer.Option(metavar="N", help="Networks of each family.")] = 10,
    max_parameters: Annotated[
        int, typer.Option(metavar="N", help="Larger networks are left out.")
    ] = 1_000_000,
    families: Annotated[
        list[str] | None, typer.Option("--family", metavar="NAME …", help="Only these.")
    ] = None,
) -> None:
    """Predict unseen members of the target space, and write and print what they start with."""
    for family in families or ():
        if family not in LARGEST:
            raise ConfigError(f"there is no family {family!r}.{did_you_mean(family, LARGEST)}")
    config = RankingConfig(images=images, image_size=image_size, max_parameters=max_parameters)
    counts: Counter[str] = Counter()
    networks = []
    for architecture, parameters in sample_networks(config, **config.task().arguments):
        family = architecture.family
        if counts[family] == members:  # they take turns, so the others have as many
            break
        counts[family] += 1
        if not families or family in families:
            networks.append(
                {
                    "family": family,
                    "spec": architecture.spec,
                    "kwargs": kwargs_json(architecture),
                    "parameters": parameters,
                }
            )
    networks.sort(key=lambda network: str(network["family"]))
    table = pd.DataFrame(networks)
    judgements = judge_networks(config, table, checkpoint, seeds=(0,)).drop(columns="family")
    table = pd.concat([table, judgements], axis=1)
    write_whole(output, table.to_csv(index=False, float_format="%.6g"), "choose another output file")
    means = table.groupby("family")[["accuracy_ghn", "accuracy_base", "accuracy_random"]].mean()
    means.loc["mean of families"] = means.mean()
    print((100 * means).round(1).rename(columns=lambda name: name.removeprefix("accuracy_")).to_string())


def main(arguments: Sequence[str]) -> None:
    """Run the command as a program."""
    run_command(unseen, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
