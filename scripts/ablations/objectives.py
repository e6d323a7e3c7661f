"""What to learn from: the objectives of meta-training against each other, on the same compute.

    python scripts/ablations/objectives.py
    python scripts/ablations/objectives.py --images uoft-cs/cifar10 --text DIR --passes 20000

Compute is counted in forward and backward passes of targets; a prediction, with the hypernetwork's own gradient, costs
about as much as ``PREDICTION`` of them (benchmarks/metatrain.py). Each hypernetwork is then judged by what users do:
training held-out architectures from its predictions, at two rates, beside its own base and the zoo's weights.
"""

import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer
from common import RESULTS, SMALL, plot_lines, train_variant, write_rows
from rich.console import Console

from ghn.evaluate.config import EvaluateConfig, cases, comparison
from ghn.evaluate.statistics import at_share, sem
from ghn.finetune.choose import batches_of, make_task
from ghn.finetune.config import CompareConfig
from ghn.finetune.loop import Budget, make_accelerator, train_run
from ghn.finetune.results import Run, best_runs, mean_curve
from ghn.hypernetwork import GHN, GHNConfig
from ghn.metatrain.config import MetaTrainConfig

PREDICTION = 4

HELD_OUT = {
    "images": ("mobilenetv3-11x48", "swin-6x192"),
    "text": ("opt-6x256", "gpt_neox-6x256"),
}
"""Architectures to judge by, of families that are not trained on."""

_DEFAULT = replace(SMALL, inner_batch_size=16, ghn=GHNConfig())
_REGRESSION = replace(_DEFAULT, objective="regression", trust_penalty=1e-3, image_trust_penalty=1e-3)

VARIANTS = {
    "step0": _DEFAULT,
    "after_k, 8 to 32": replace(_REGRESSION, objective="after_k", inner_steps=(8, 32)),
    "trajectory, 8 to 32": replace(_REGRESSION, objective="trajectory", inner_steps=(8, 32)),
    "trajectory, penalized trust": replace(
        _REGRESSION, objective="trajectory", inner_steps=(8, 32), trust_penalty=0.3, image_trust_penalty=0.3
    ),
    "regression, 8 to 32": replace(_REGRESSION, inner_steps=(8, 32)),
    "regression, 64 to 128": replace(_REGRESSION, inner_steps=(64, 128)),
    "regression, 64 to 128, 4 repeats": replace(_REGRESSION, inner_steps=(64, 128), repeats=4),
}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One start on one held-out architecture, at its best rate; means over the seeds."""

    start: str
    updates: int
    seconds: float
    """Of meta-training."""
    architecture: str
    lr: float
    first: float
    """Metric before training: accuracy, or negative bits per byte."""
    early: float
    """After a fifth of the steps."""
    final: float
    final_sem: float
    """Standard error over the seeds."""


def updates_for(config: MetaTrainConfig, passes: int) -> int:
    """Updates that the compute allows; the mean of log-uniform steps is (high - low) / log(high / low)."""
    low, high = config.inner_steps
    inner = 0.0 if config.objective == "step0" else (high - low) / math.log(high / low) if high > low else low
    cost = config.targets_per_step * (inner + 1 + PREDICTION * config.repeats)
    return max(2, round(passes / cost))


def judge(
    start: str,
    arm: str,
    config: MetaTrainConfig,
    checkpoint: str,
    steps: int,
    trained: tuple[int, float],
) -> tuple[list[Judged], dict[str, list[Run]]]:
    """Train the held-out architectures from one start, each at two rates with three seeds.

    Returns:
        A row for each, and by architecture the runs of its best rate.
    """
    held = EvaluateConfig(
        images=config.images,
        text=config.text,
        transfer_images="",
        transfer_text="",
        image_size=config.image_size,
        sequence_length=config.sequence_length,
        checkpoint=checkpoint or None,
        lr=CompareConfig().lr,
        steps=steps,
        eval_samples=500,
        device="cpu",
    )
    found, chosen = [], {}
    for name in (name for names in HELD_OUT.values() for name in names):
        (case,) = cases(held, name)
        plan = comparison(held, case, arm, "")
        accelerator, task = make_accelerator(plan), make_task(plan)
        budget = Budget.of(plan, task, *batches_of(plan, task))
        runs = [
            train_run(task, plan, budget, accelerator, arm, seed, rate)
            for seed in plan.seeds
            for rate in plan.lr
        ]
        best = best_runs(runs, arm)
        metrics = [metric for _, metric, _ in mean_curve(best, "metric")]
        found.append(
            Judged(
                start=start,
                updates=trained[0],
                seconds=trained[1],
                architecture=name,
                lr=best[0].lr,
                first=metrics[0],
                early=metrics[len(metrics) // 5],
                final=metrics[-1],
                final_sem=sem(at_share(best, 1.0)) or 0.0,
            )
        )
        chosen[name] = best
    return found, chosen


def main(
    passes: Annotated[int, typer.Option(help="Compute of each variant.")] = 4000,
    steps: Annotated[int, typer.Option(help="Training steps of the architectures to judge by.")] = 100,
    images: str = SMALL.images,
    text: str = SMALL.text,
    output: Path = RESULTS,
) -> None:
    """Meta-train the variants and judge them."""
    rows: list[Judged] = []
    curves: dict[str, dict[str, list[Run]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        untrained = Path(folder) / "untrained"
        GHN(_DEFAULT.ghn).save_pretrained(untrained)
        starts = {"random": ("random", ""), "base": ("base", str(untrained))}
        trained: dict[str, tuple[int, float]] = {}
        data = {"images": images, "text": text}
        for name, variant in VARIANTS.items():
            config = replace(variant, **data, steps=updates_for(variant, passes))
            row, _, net = train_variant(name, config)
            Console().print(row)
            net.save_pretrained(Path(folder) / name)
            starts[name], trained[name] = ("ghn", str(Path(folder) / name)), (config.steps, row.seconds)
        for name, (arm, checkpoint) in starts.items():
            judged, curves[name] = judge(
                name,
                arm,
                replace(SMALL, **data),
                checkpoint,
                steps,
                trained.get(name, (0, 0.0)),
            )
            rows += judged
            write_rows("objectives", rows, output)
    for task, architectures in HELD_OUT.items():
        lines = {}
        for name, chosen in curves.items():
            each = [mean_curve(chosen[architecture], "metric") for architecture in architectures]
            means = [fmean(curve[point][1] for curve in each) for point in range(len(each[0]))]
            lines[name] = ([step for step, *_ in each[0]], means)
        label = "accuracy" if task == "images" else "−bits per byte"
        plot_lines(f"objectives-{task}", lines, output, "step", f"{label}, mean of held-out architectures")


if __name__ == "__main__":
    typer.run(main)
