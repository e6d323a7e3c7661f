"""Does the loss before training under a hypernetwork tell which architectures end well? Kendall's τ, by what else does.

    python scripts/rank_architectures.py runs/ranking
    python scripts/rank_architectures.py runs/ranking --checkpoint checkpoints/ghn-slots

The first trains sampled networks from their own start; run again to go on after an interruption. The second also judges
each before training under the hypernetwork, its base, and the network's own start.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without installation

import pandas as pd
import typer
from rich.console import Console

from ghn.console import run_command
from ghn.environment import commit
from ghn.errors import OutputError
from ghn.evaluate.config import short_name
from ghn.evaluate.rank_correlation import KINDS, rank_correlations, scatter, tau_table
from ghn.evaluate.ranking import RankingConfig, judge_networks, train_networks
from ghn.finetune.page import png_of
from ghn.finetune.run_folder import RunFolder
from ghn.options import given_options, with_options
from ghn.shortcut import load_hypernetwork


@with_options(RankingConfig, metavars={"images": "ID|DIR", "lr": "RATE …"})
def rank(
    output: Annotated[Path, typer.Argument(help="Folder for networks and results; call again to go on.")],
    checkpoint: Annotated[
        str | None, typer.Option(metavar="DIR|ID", help="Hypernetwork that judges; none trains alone.")
    ] = None,
    **options: Any,
) -> None:
    """Train sampled networks, and rank them by their loss before training."""
    config = RankingConfig(**given_options(options))
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output} can't be a folder ({error.strerror}); choose another") from error
    if checkpoint:
        load_hypernetwork(checkpoint)  # a mistake shows before anything is trained
    folder = RunFolder(output)
    networks = train_networks(config, folder)
    if not checkpoint:
        return
    judgements = judge_networks(config, networks, checkpoint)
    folder.write("untrained.csv", judgements.to_csv(index=False, float_format="%.6g"))
    table = pd.concat([networks, judgements.drop(columns="family")], axis=1).dropna(subset="accuracy")
    correlations = rank_correlations(table)
    folder.write_json(
        "ranking.json",
        {
            "networks": len(table),
            "diverged": len(networks) - len(table),
            "kinds": KINDS,
            **correlations,
            "checkpoint": short_name(checkpoint),
            "fingerprint": load_hypernetwork(checkpoint).fingerprint(),
            "commit": commit(),
        },
    )
    folder.write("ranking.png", png_of(scatter(table)))
    Console().print(
        tau_table(correlations, len(table)).terminal(
            "\n".join(f"{kind}: {text}" for kind, text in KINDS.items())
        )
    )


def main(arguments: Sequence[str]) -> None:
    """Run the command as a program."""
    run_command(rank, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
