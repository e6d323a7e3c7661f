"""Activation scale of untrained predictions, block by block, against the zoo's own initialization.

    python benchmarks/activations.py

For each model and block: standard deviation of the block's output with predicted weights over that with the zoo's own
random weights, and how much the output depends on the input (spread over a batch, relative to all of the output), for
an untrained hypernetwork (its base, and with its untrained learned part). Writes benchmarks/results/activations.csv.
"""

import csv
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ghn.hypernetwork import GHN
from ghn.models import load_model

MODELS = {
    "timm:resnet50": "Bottleneck",
    "timm:vit_small_patch16_224": "Block",
    "timm:convnext_tiny": "ConvNeXtBlock",
    "timm:mixer_b16_224": "MixerBlock",
    "timm:deit3_small_patch16_224": "Block",
    "hf:gpt2": "GPT2Block",
}
"""Models of the bar, and the class of their blocks."""

RESULTS = Path(__file__).parent / "results" / "activations.csv"


def measure(model: nn.Module, block: str, run: Callable[[nn.Module], None]) -> dict[str, tuple[float, float]]:
    """Standard deviation and input dependence of every block's output, by the block's name."""
    figures: dict[str, tuple[float, float]] = {}

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            values = output[0] if isinstance(output, tuple) else output
            assert isinstance(values, Tensor)
            figures[name] = (values.std().item(), (values.std(dim=0).mean() / values.std()).item())

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for name, module in model.named_modules()
        if type(module).__name__ == block
    ]
    with torch.no_grad():
        run(model)
    for handle in handles:
        handle.remove()
    return figures


def run_on(spec: str, model: nn.Module, batch: int) -> None:
    """One forward pass on random inputs that are the same for every initialization."""
    generator = torch.Generator().manual_seed(0)
    if spec.startswith("hf:"):
        model(input_ids=torch.randint(50257, (batch, 64), generator=generator), use_cache=False)
    else:
        model(torch.randn(batch, 3, 224, 224, generator=generator))


def main(batch: int = 8, output: Path = RESULTS) -> None:
    """Measure all models in eval and train mode."""
    torch.manual_seed(0)
    net = GHN()
    rows: list[list[Any]] = []
    for spec, block in MODELS.items():
        models = {"zoo": load_model(spec), "base": load_model(spec), "untrained": load_model(spec)}
        net.init_(models["base"], learned=False)
        net.init_(models["untrained"])
        # Dropout would add noise to train mode; batch statistics are what differs.
        for model in models.values():
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
        for mode in ("eval", "train"):
            figures = {
                arm: measure(model.train(mode == "train"), block, partial(run_on, spec, batch=batch))
                for arm, model in models.items()
            }
            for name, (deviation, dependence) in figures["zoo"].items():
                for arm in ("base", "untrained"):
                    std, depends = figures[arm][name]
                    rows.append([spec, mode, arm, name, deviation, std, std / deviation, dependence, depends])
    header = "model mode arm block zoo_std std ratio zoo_dependence dependence".split()
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", newline="") as file:
        csv.writer(file).writerows([header, *([*r[:4], *(f"{v:.4g}" for v in r[4:])] for r in rows)])
    table = Table("model", "mode", "arm", "smallest", "median", "largest", "within 0.5–2")
    for key in dict.fromkeys(tuple(row[:3]) for row in rows):
        ratios = [row[6] for row in rows if tuple(row[:3]) == key]
        inside = sum(0.5 <= ratio <= 2 for ratio in ratios)
        spread = (min(ratios), statistics.median(ratios), max(ratios))
        table.add_row(*key, *(f"{value:.2f}" for value in spread), f"{inside}/{len(ratios)}")
    Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
