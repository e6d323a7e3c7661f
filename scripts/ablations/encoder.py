"""A graph encoder against one learned embedding per layer, which knows only the order of the layers.

    python scripts/ablations/encoder.py

The table of embeddings is the static hypernetwork of https://arxiv.org/abs/1609.09106. Both fit what they are trained
on; what counts is the loss on architectures that were not.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from common import RESULTS, SMALL, plot_curves, train_variants, write_rows

from ghn.encoder import EncoderConfig

VARIANTS = {
    "graph, 3 layers": EncoderConfig(),
    "graph, 1 layer": EncoderConfig(layers=1),
    "table": EncoderConfig(kind="table"),
}


def main(
    steps: Annotated[int, typer.Option(help="Updates of each variant.")] = SMALL.steps,
    seeds: Annotated[int, typer.Option(help="Runs of each variant.")] = 3,
    output: Path = RESULTS,
) -> None:
    """Train the variants on the same targets."""
    variants = {
        name: replace(SMALL, steps=steps, ghn=replace(SMALL.ghn, encoder=encoder))
        for name, encoder in VARIANTS.items()
    }
    rows, curves, _ = train_variants(variants, range(seeds))
    write_rows("encoder", rows, output)
    plot_curves("encoder", curves, output, "loss of the prediction (nats)")


if __name__ == "__main__":
    typer.run(main)
