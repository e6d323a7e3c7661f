"""Initialization of the heads that make weights: Hyperfan-in and -out against Xavier, Kaiming and normalized factors.

    python scripts/ablations/hyperfan.py

Measured as in the paper (https://arxiv.org/abs/2312.08399): scale of activations through the depth of a target, before
and during meta-training. There is no base, so that the heads alone decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer
from common import RESULTS, SMALL, Trained, plot_curves, plot_lines, train_variants, write_rows
from torch import nn

from ghn.decoder import DecoderConfig
from ghn.hypernetwork import GHN, GHNConfig

RULES = {
    "normalized": DecoderConfig(base="none"),
    "hyperfan": DecoderConfig(base="none", output="hyperfan"),
    "hyperfan-in": DecoderConfig(base="none", output="hyperfan", fan="fan_in"),
    "hyperfan-out": DecoderConfig(base="none", output="hyperfan", fan="fan_out"),
    "xavier": DecoderConfig(base="none", output="xavier"),
    "kaiming": DecoderConfig(base="none", output="kaiming"),
}
"""The first two aim at the sizes that model zoos start with at each place, which the paper's rules, from the fans of
the predicted weight alone, do not know."""
RATES = (SMALL.lr, SMALL.lr / 10)
"""Of the hypernetwork: what large heads can't be trained at, others may."""
DEPTH, WIDTH = 12, 128
FLOOR = 1e-6
"""Of the logarithmic plots."""


@dataclass(frozen=True)
class Scale:
    """Activations after one layer of a plain rectified network."""

    rule: str
    lr: float
    updates: int
    """Of the hypernetwork."""
    layer: int
    deviation: float
    """Standard deviation; inputs have 1."""


@torch.no_grad()
def scales(rule: str, lr: float, updates: int, net: GHN) -> list[Scale]:
    """Run a deep network without normalization, where sizes add up, on random inputs."""
    layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(DEPTH)]
    target = nn.Sequential(*layers, nn.Linear(WIDTH, 10))
    inputs = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(0))
    net.eval().init_(target, inputs)
    found, values = [], inputs
    for number, layer in enumerate(target, start=1):
        values = layer(values)
        found.append(Scale(rule, lr, updates, number, values.std().item()))
    return found


def main(
    steps: Annotated[int, typer.Option(help="Updates of each variant.")] = SMALL.steps,
    seeds: Annotated[int, typer.Option(help="Runs of each variant; scales are the last one's.")] = 3,
    output: Path = RESULTS,
) -> None:
    """Measure before training, after a short one of a tenth of the updates, and after the whole."""
    measured: list[Scale] = []
    rows: list[Trained] = []
    curves: dict[str, list[list[float]]] = {}
    for rule, lr in product(RULES, RATES):
        config = replace(SMALL, lr=lr, ghn=GHNConfig(decoder=RULES[rule]))
        if lr == RATES[0]:  # before training they are the same
            torch.manual_seed(0)
            measured += scales(rule, lr, 0, GHN(config.ghn))
        name = f"{rule}, {lr:g}"
        for updates, runs in ((max(1, steps // 10), 1), (steps, seeds)):
            trained, losses, nets = train_variants({name: replace(config, steps=updates)}, range(runs))
            measured += scales(rule, lr, updates, nets[name])
        rows += trained
        curves |= losses
    write_rows("hyperfan", rows, output)
    write_rows("hyperfan-scales", measured, output)
    plot_curves("hyperfan", curves, output, "loss of the prediction (nats)")
    for updates, when in ((0, "before"), (steps, "after")):
        chosen = [scale for scale in measured if scale.updates == updates]
        lines = {
            f"{rule}, {lr:g}" if updates else rule: _line([s for s in chosen if (s.rule, s.lr) == (rule, lr)])
            for rule, lr in product(RULES, RATES if updates else RATES[:1])
        }
        name = f"hyperfan-scales-{when}"
        plot_lines(
            name, lines, output, "layer", f"deviation of activations {when} training", logarithmic=True
        )


def _line(entries: Sequence[Scale]) -> tuple[list[float], list[float]]:
    """Layers and deviations; where activations have died out the line stays at ``FLOOR``."""
    return [entry.layer for entry in entries], [max(entry.deviation, FLOOR) for entry in entries]


if __name__ == "__main__":
    typer.run(main)
