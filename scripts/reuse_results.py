"""Turn the curves of a finished evaluation back into runs, so that evaluate_init.py trains new arms alone.

python scripts/reuse_results.py benchmarks/results/held-out-cpu runs/held-out --images uoft-cs/cifar10 --checkpoint DIR
python scripts/evaluate_init.py runs/held-out --images uoft-cs/cifar10 --checkpoint DIR --inits random base ghn

Arms that need no hypernetwork are reused, and ``base`` (or ghn-small's ``ghn`` for want of it) where it
starts from the same weights; with ``--earlier``, the checkpoint of the results, ``ghn`` too. A run is reused
only if the loss before training comes out as it was.
"""

import argparse
import csv
import json
import sys
from collections import defaultdict
from dataclasses import fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without installation

from ghn.arms import NEEDS_CHECKPOINT
from ghn.console import one_line_errors
from ghn.errors import ConfigError
from ghn.evaluate.config import Case, EvaluateConfig, cases, comparison, short_name
from ghn.evaluate.run import case_folder, starting_weights
from ghn.finetune.choose import batches_of, make_task
from ghn.finetune.loop import Budget, make_accelerator, train_run
from ghn.finetune.run import Point, Run
from ghn.finetune.run_folder import ComparisonFolder

AGREES = 2e-3
"""Largest relative difference of a loss before training, between processors."""

Key = tuple[str, str, str, int, float]
"""Model, data set, arm, seed and rate."""


def read_curves(path: Path) -> dict[Key, list[Point]]:
    """The curves of ``curves.csv``."""
    curves: dict[Key, list[Point]] = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            key = row["model"], row["dataset"], row["arm"], int(row["seed"]), float(row["lr"])
            curves[key].append(Point(int(row["step"]), float(row["loss"]), float(row["metric"])))
    return curves


def reuse(
    config: EvaluateConfig,
    case: Case,
    curves: dict[Key, list[Point]],
    folder: Path,
    source: str,
    earlier: str | None,
) -> str:
    """Write the runs of one case; returns what was done, in words."""
    steps = config.transfer_steps if case.transfer else config.steps
    arms = {key[2] for key in curves if key[:2] == (case.name, case.data)}
    notes = []
    reusable = [*sorted(arms - {*NEEDS_CHECKPOINT}), *["base"] * bool(arms & {*NEEDS_CHECKPOINT})]
    reusable += ["ghn"] * (earlier is not None and "ghn" in arms)
    task = make_task(comparison(config, case, "random", ""))
    for arm in reusable:
        plan = comparison(config, case, arm, str(case_folder(folder, case) / arm))
        origin = arm if arm in arms else "ghn"
        if arm in NEEDS_CHECKPOINT:
            before = comparison(replace(config, checkpoint=earlier or "ghn-small"), case, origin, "")
            if starting_weights(origin, task, before) != starting_weights(arm, task, plan):
                continue
        own = {key: curve for key, curve in curves.items() if key[:3] == (case.name, case.data, origin)}
        own = {key: curve for key, curve in own.items() if curve[-1].step == steps}
        if not own:
            continue
        *_, seed, rate = min(own)
        budget = replace(Budget.of(plan, task, *batches_of(plan, task)), steps=1, eval_every=1)
        again = train_run(task, plan, budget, make_accelerator(plan), arm, seed, rate).curve[0].loss
        first = own[min(own)][0].loss
        if abs(again - first) > AGREES * first:
            notes.append(f"{arm} not reused: its loss before training is {again:.4f}, was {first:.4f}")
            continue
        runs = ComparisonFolder(plan, task.dataset)
        for (*_, seed, rate), curve in own.items():
            run = Run(
                init=arm,
                seed=seed,
                lr=rate,
                init_seconds=0.0,
                train_seconds=0.0,
                peak_bytes=0,
                curve=tuple(curve),
                note=f"from {source}",
            )
            runs.save(run)
        notes.append(f"{len(own)} runs of {arm}")
    return f"{case.name}, {case.data}: {', '.join(notes) or 'nothing'}"


def main(arguments: list[str]) -> None:
    """Parse the command line, and reuse."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="folder with curves.csv and results.json")
    parser.add_argument("output", type=Path, help="folder for evaluate_init.py")
    parser.add_argument("--images", help="where the results' image data are now")
    parser.add_argument("--text", help="where the results' text is now")
    parser.add_argument("--checkpoint", metavar="DIR", help="what evaluate_init.py will be given")
    parser.add_argument("--earlier", metavar="DIR", help="checkpoint of the results, if its ghn counts too")
    parser.add_argument("--models", default="*", help="shell pattern of names")
    options = parser.parse_args(arguments)
    with one_line_errors():
        settings = json.loads((options.results / "results.json").read_text())["config"]
        names = {field.name for field in fields(EvaluateConfig)}
        config = EvaluateConfig.preset("cpu", **{name: settings[name] for name in names & set(settings)})
        for name, place in (("images", options.images), ("text", options.text)):
            if place and short_name(place) != settings[name]:
                raise ConfigError(f"--{name} is {place}; the results are of {settings[name]}")
        config = replace(
            config, images=options.images or "", text=options.text or "", checkpoint=options.checkpoint
        )
        curves = read_curves(options.results / "curves.csv")
        for case in cases(config, options.models):
            source = options.results.name
            print(reuse(config, case, curves, options.output, source, options.earlier), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
