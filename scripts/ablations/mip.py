"""Magnitude-invariant parametrization on and off: size features of constant norm, and output added to a base.

    python scripts/ablations/mip.py

The paper's two claims: hypernetworks with it learn faster, and what they write does not grow in proportion to what they
read (https://arxiv.org/abs/2304.07645). The second is measured as the size of predicted weights, relative to the fan-in
rule, against the width of the target: widths far from those trained on must not change it.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from common import RESULTS, SMALL, plot_curves, plot_lines, train_variants, write_rows
from torch import nn

from ghn.decoder import DecoderConfig
from ghn.encoder import EncoderConfig
from ghn.hypernetwork import GHN, GHNConfig

WIDTHS = [2**power for power in range(3, 13)]

VARIANTS = {
    f"{'circle' if circle else 'plain'} sizes, {'residual' if residual else 'bare'} output": replace(
        SMALL,
        ghn=GHNConfig(
            encoder=EncoderConfig(sizes="circle" if circle else "plain"),
            decoder=(
                DecoderConfig(output="hyperfan", scope="all")
                if residual
                else DecoderConfig(output="hyperfan", base="none")
            ),
        ),
    )
    for circle in (True, False)
    for residual in (True, False)
}
"""All without normalization of the factors, which would fix magnitudes by itself; the default, with it, comes last.
Every tensor is learned, those inside of a network too, of which sizes are measured."""
VARIANTS["default: circle, residual, normalized"] = replace(
    SMALL, ghn=GHNConfig(decoder=DecoderConfig(scope="all"))
)


@dataclass(frozen=True)
class Size:
    """Size of the weights that a trained variant predicts for an MLP of one width."""

    variant: str
    width: int
    relative_size: float
    """Root mean square over that of a fan-in rule; proportional output would be a line through the origin."""


@torch.no_grad()
def sizes(variant: str, net: GHN) -> list[Size]:
    """Predict MLPs of many widths."""
    found = []
    for width in WIDTHS:
        mlp = nn.Sequential(
            nn.Linear(16, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 10)
        )
        weight = net.predict(mlp, torch.randn(2, 16))["2.weight"]
        found.append(Size(variant, width, weight.square().mean().sqrt().item() * math.sqrt(width)))
    return found


def main(
    steps: Annotated[int, typer.Option(help="Updates of each variant.")] = SMALL.steps,
    seeds: Annotated[int, typer.Option(help="Runs of each variant.")] = 3,
    output: Path = RESULTS,
) -> None:
    """Train the variants, then predict weights of many widths."""
    variants = {name: replace(config, steps=steps) for name, config in VARIANTS.items()}
    rows, curves, nets = train_variants(variants, range(seeds))
    write_rows("mip", rows, output)
    plot_curves("mip", curves, output, "loss of the prediction (nats)")
    measured = {name: sizes(name, net.eval()) for name, net in nets.items()}
    write_rows("mip-sizes", [size for entries in measured.values() for size in entries], output)
    lines = {name: (WIDTHS, [size.relative_size for size in entries]) for name, entries in measured.items()}
    plot_lines("mip-sizes", lines, output, "width", "size of weights / fan-in rule", logarithmic=True)


if __name__ == "__main__":
    typer.run(main)
