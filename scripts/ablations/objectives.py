"""What to learn from: the objectives of meta-training against each other, on the same compute.

    python scripts/ablations/objectives.py
    python scripts/ablations/objectives.py --images uoft-cs/cifar10 --text DIR --passes 20000
    python scripts/ablations/objectives.py --steps 480 --only random --only base --only step0

Compute is counted in forward and backward passes of targets; a prediction, with the hypernetwork's own gradient, costs
about as much as ``PREDICTION`` of them (benchmarks/metatrain.py). Each hypernetwork is then judged by what users do:
training held-out architectures from its predictions, at two rates, beside its own base and the zoo's weights. What is
in the output folder already, with the same settings, isn't done again; other rows in it are kept.
"""

import csv
import hashlib
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from common import RESULTS, SMALL, plot_lines, train_variant, write_rows
from rich.console import Console

from ghn.decoder import DecoderConfig
from ghn.environment import commit
from ghn.evaluate.config import EvaluateConfig, cases, comparison, short_name
from ghn.evaluate.run import Runs, best_rate
from ghn.evaluate.statistics import at_share
from ghn.finetune.choose import make_task
from ghn.finetune.config import CompareConfig
from ghn.finetune.loop import make_accelerator
from ghn.finetune.results import mean_curve, sem
from ghn.hypernetwork import GHN, GHNConfig
from ghn.metatrain.config import MetaTrainConfig

PREDICTION = 4

HELD_OUT = {
    "images": ("mobilenetv3-11x48", "swin-6x192"),
    "text": ("opt-6x256", "gpt_neox-6x256"),
}
"""Architectures to judge by, of families that are not trained on."""


def _trusting(most: float, **decoder: Any) -> GHNConfig:
    return GHNConfig(decoder=DecoderConfig(max_trust=most, **decoder))


_STEP0 = replace(SMALL, inner_batch_size=16, trust_penalty=1e-3, image_trust_penalty=1e-3, ghn=_trusting(0.7))
_REGRESSION = replace(_STEP0, objective="regression")
_TRAJECTORY = replace(_REGRESSION, objective="trajectory", inner_steps=(8, 32))

VARIANTS = {
    "step0": _STEP0,
    "after_k, 8 to 32": replace(_TRAJECTORY, objective="after_k"),
    "trajectory, 8 to 32": _TRAJECTORY,
    "trajectory, penalized trust": replace(_TRAJECTORY, trust_penalty=0.3, image_trust_penalty=0.3),
    "regression, 8 to 32": replace(_REGRESSION, inner_steps=(8, 32)),
    "regression, 64 to 128": replace(_REGRESSION, inner_steps=(64, 128)),
    "regression, 64 to 128, 4 repeats": replace(_REGRESSION, inner_steps=(64, 128), repeats=4),
    "trajectory, SGD": replace(_TRAJECTORY, inner_optimizer="sgd", inner_lr=(0.02, 0.1)),
    "trajectory, not balanced": replace(_TRAJECTORY, balance=False),
    "trajectory, 2 bases": replace(_TRAJECTORY, bases=2),
    "trajectory, parameter penalty": replace(_TRAJECTORY, parameter_penalty=0.1),
    "trajectory, all tensors": replace(_TRAJECTORY, ghn=_trusting(0.7, scope="all")),
    "trajectory, all tensors, factors as they are": replace(
        _TRAJECTORY, ghn=_trusting(0.7, scope="all", output="hyperfan")
    ),
    "step0, all tensors": replace(_STEP0, ghn=_trusting(0.7, scope="all")),
    "step0, trust to 0.3": replace(_STEP0, ghn=_trusting(0.3)),
    "step0, trust to 0.1, images penalized": replace(
        _STEP0, image_trust_penalty=MetaTrainConfig().image_trust_penalty, ghn=GHNConfig()
    ),
}
"""Factors have a flat spectrum but for those "as they are"; only tensors whose rows or columns are tokens, pixels or
classes are learned but where it says "all"; the trust in what is learned goes to 0.7 where nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One start on one held-out architecture, at its best rate; means over the seeds."""

    data: str
    passes: int
    """Compute of meta-training."""
    steps: int
    """Training steps of the architecture."""
    start: str
    settings: str
    """Digest of all settings that the start depends on."""
    commit: str
    """Of the library; rows of several calls stay together."""
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
    curve: str
    """Mean metric at every evaluation, with semicolons."""


def updates_for(config: MetaTrainConfig, passes: int) -> int:
    """Updates that the compute allows; the mean of log-uniform steps is (high - low) / log(high / low)."""
    low, high = config.inner_steps
    inner = 0.0 if config.objective == "step0" else (high - low) / math.log(high / low) if high > low else low
    cost = config.targets_per_step * (inner + 1 + PREDICTION * config.repeats)
    return max(2, round(passes / cost))


def judge(
    arm: str, config: MetaTrainConfig, checkpoint: str, steps: int, folder: Path, **known: Any
) -> list[Judged]:
    """Train the held-out architectures from one start: the first of three seeds finds the better of two rates.

    Args:
        arm: 'random', 'base' or 'ghn'.
        config: Says which data, and of which size.
        checkpoint: Of the arms but the first.
        steps: Training steps.
        folder: Gets the runs.
        known: What else belongs into the rows.
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
    found = []
    for name in (name for names in HELD_OUT.values() for name in names):
        (case,) = cases(held, name)
        plan = comparison(held, case, arm, str(folder / "runs" / name))
        runs = Runs(plan, make_task(plan), make_accelerator(plan), f"{known['start']}, {name}")
        rate = best_rate(runs, plan.seeds[0], sorted(plan.lr))
        best = runs.get([(seed, rate) for seed in plan.seeds])
        metrics = [metric for _, metric, _ in mean_curve(best, "metric")]
        found.append(
            Judged(
                **known,
                commit=commit(),
                steps=steps,
                architecture=name,
                lr=rate,
                first=metrics[0],
                early=metrics[len(metrics) // 5],
                final=metrics[-1],
                final_sem=sem(at_share(best, 1.0)) or 0.0,
                curve=";".join(f"{metric:.5g}" for metric in metrics),
            )
        )
    return found


def main(
    passes: Annotated[int, typer.Option(help="Compute of each variant.")] = 4000,
    steps: Annotated[int, typer.Option(help="Training steps of the architectures to judge by.")] = 100,
    images: str = SMALL.images,
    text: str = SMALL.text,
    only: Annotated[
        list[str] | None, typer.Option(help="Starts to judge; more than once for several.")
    ] = None,
    output: Path = RESULTS,
) -> None:
    """Meta-train the variants and judge them."""
    sources = {"images": images, "text": text}
    same = {"data": f"{short_name(images)}, {short_name(text)}", "passes": passes}
    kept, rows = _read(output), []
    starts = ("random", "base", *VARIANTS)
    if unknown := set(only or ()) - set(starts):
        raise typer.BadParameter(f"no start {', '.join(unknown)}; there are: {', '.join(starts)}")
    for start in starts:
        settings = {**same, "settings": _digest(start)}
        known = {**settings, "steps": steps, "start": start}
        judged = [row for row in kept if known.items() <= asdict(row).items()]
        if not judged and (not only or start in only):
            judged = _train_and_judge(start, sources, steps, settings)
            kept += judged
            write_rows(
                "objectives",
                kept,
                output,
                unprinted=("data", "passes", "steps", "settings", "commit", "curve"),
            )
        rows += judged
    for task, architectures in HELD_OUT.items():
        lines = {}
        for start in dict.fromkeys(row.start for row in rows):
            each = [
                [float(metric) for metric in row.curve.split(";")]
                for row in rows
                if row.start == start and row.architecture in architectures
            ]
            means = [fmean(metrics) for metrics in zip(*each, strict=True)]
            lines[start] = ([steps * point / (len(means) - 1) for point in range(len(means))], means)
        label = "accuracy" if task == "images" else "−bits per byte"
        plot_lines(
            f"objectives-{task}-{steps}", lines, output, "step", f"{label}, mean of held-out architectures"
        )


def _train_and_judge(
    start: str, sources: Mapping[str, Any], steps: int, same: dict[str, Any]
) -> list[Judged]:
    with tempfile.TemporaryDirectory() as folder:
        if start in VARIANTS:
            config = replace(VARIANTS[start], **sources, steps=updates_for(VARIANTS[start], same["passes"]))
            trained, _, net = train_variant(start, config)
            Console().print(trained)
            arm, updates, seconds = "ghn", config.steps, trained.seconds
        else:
            arm, updates, seconds, net = start, 0, 0.0, GHN(_STEP0.ghn)
        checkpoint = "" if arm == "random" else str(Path(folder) / "net")
        net.save_pretrained(Path(folder) / "net")
        known = {**same, "start": start, "updates": updates, "seconds": seconds}
        return judge(arm, replace(SMALL, **sources), checkpoint, steps, Path(folder), **known)


def _digest(start: str) -> str:
    settings = json.dumps(VARIANTS.get(start, _STEP0).to_dict(), sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()[:8]


def _read(folder: Path) -> list[Judged]:
    """Rows that earlier calls have left, of whatever settings."""
    path = folder / "objectives.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Judged(**{entry.name: entry.type(row[entry.name]) for entry in fields(Judged)})  # type: ignore[operator]
            for row in csv.DictReader(file)
        ]


if __name__ == "__main__":
    typer.run(main)
