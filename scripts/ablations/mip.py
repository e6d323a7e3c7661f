"""Magnitude-invariant parametrization on and off: size features of constant norm, and output added to a base.

    python scripts/ablations/mip.py

The paper's two claims: hypernetworks with it learn faster, and what they write does not grow in proportion to what they
read (https://arxiv.org/abs/2304.07645). The second is measured as the size of predicted weights, relative to the fan-in
rule, before and after training: against the magnitude of what is read (all log sizes of a graph times a factor), and
against the width of the target, where widths far from those trained on must not change it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from common import RESULTS, SMALL, plot_curves, plot_lines, train_variants, write_rows
from torch import nn

from ghn.decoder import DecoderConfig, Order
from ghn.encoder import EncoderConfig
from ghn.graph.features import encode_magnitude, plain_magnitude
from ghn.graph.trace import trace
from ghn.hypernetwork import GHN, GHNConfig

WIDTHS = [2**power for power in range(3, 13)]
WIDTH = 64
"""At which magnitudes are changed."""
MAGNITUDES = [2.0**power for power in range(-6, 1)]

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
    """Size of the weights that a variant predicts for the middle layer of an MLP."""

    variant: str
    updates: int
    """Of the hypernetwork."""
    width: int
    magnitude: float
    """Factor of all that the hypernetwork reads in numbers; 1 is the graph as it is."""
    relative_size: float
    """Root mean square over that of a fan-in rule."""


@torch.no_grad()
def size(variant: str, updates: int, net: GHN, width: int, magnitude: float = 1.0) -> Size:
    """Predict an MLP as if the log sizes in its graph were that many times as large."""
    mlp = nn.Sequential(
        nn.Linear(16, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 10)
    )
    graph = trace(mlp, torch.randn(2, 16))
    data = graph.to_pyg()
    data.x = encode_magnitude(magnitude * plain_magnitude(data.x))
    embeddings = net.encoder(data)[data.param_index]
    weight = net.decoder([Order(graph, embeddings)])[0]["2.weight"]
    relative = weight.square().mean().sqrt().item() * math.sqrt(width)
    return Size(variant, updates, width, magnitude, relative)


def sizes(variant: str, updates: int, net: GHN) -> list[Size]:
    """Over many widths, and over many magnitudes of one graph."""
    widths = [size(variant, updates, net, width) for width in WIDTHS]
    return widths + [size(variant, updates, net, WIDTH, magnitude) for magnitude in MAGNITUDES[:-1]]


def main(
    steps: Annotated[int, typer.Option(help="Updates of each variant.")] = SMALL.steps,
    seeds: Annotated[int, typer.Option(help="Runs of each variant.")] = 3,
    output: Path = RESULTS,
) -> None:
    """Measure the variants untrained and trained; sizes are those of the last seed."""
    variants = {name: replace(config, steps=steps) for name, config in VARIANTS.items()}
    measured: list[Size] = []
    for name, config in variants.items():
        torch.manual_seed(seeds - 1)
        measured += sizes(name, 0, GHN(config.ghn).eval())
    rows, curves, nets = train_variants(variants, range(seeds))
    for name, net in nets.items():
        measured += sizes(name, steps, net.eval())
    write_rows("mip", rows, output)
    plot_curves("mip", curves, output, "loss of the prediction (nats)")
    write_rows("mip-sizes", measured, output)
    for updates, when in ((0, "before"), (steps, "after")):
        entries = [entry for entry in measured if entry.updates == updates]
        widths = [entry for entry in entries if entry.magnitude == 1]
        magnitudes = sorted(
            (entry for entry in entries if entry.width == WIDTH), key=lambda entry: entry.magnitude
        )
        drawn = {
            "widths": ({name: _line(name, "width", widths) for name in variants}, "width"),
            "magnitudes": (
                {name: _line(name, "magnitude", magnitudes) for name in variants}
                | {"in proportion": (MAGNITUDES, MAGNITUDES)},
                "magnitude of what is read",
            ),
        }
        for kind, (lines, x) in drawn.items():
            y = f"size of weights / fan-in rule, {when} training"
            plot_lines(f"mip-{kind}-{when}", lines, output, x, y, logarithmic=True)


def _line(variant: str, x: str, entries: Sequence[Size]) -> tuple[list[float], list[float]]:
    own = [entry for entry in entries if entry.variant == variant]
    return [getattr(entry, x) for entry in own], [entry.relative_size for entry in own]


if __name__ == "__main__":
    typer.run(main)
