"""The committed tables of held-out models are of the code as it is: runs start where their curves do."""

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from ghn.evaluate.config import EvaluateConfig, cases, comparison
from ghn.finetune.choose import batches_of, make_task
from ghn.finetune.loop import Budget, make_accelerator, train_run

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DATA = ROOT.parent / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="needs the data that the table was made with")


@cache
def first_losses(folder: str) -> dict[tuple[str, str], float]:
    """Loss before the first step of seed 0, by model and arm."""
    with (RESULTS / folder / "curves.csv").open(newline="") as file:
        return {
            (row["model"], row["arm"]): float(row["loss"])
            for row in csv.DictReader(file)
            if row["step"] == row["seed"] == "0" and row["dataset"] in ("cifar10", "english")
        }


@pytest.mark.parametrize(
    ("checkpoint", "folder", "arm"),
    [
        ("ghn-slots", "held-out-slots", "random"),
        ("ghn-slots", "held-out-slots", "ghn"),
        ("ghn-small", "held-out-cpu", "ghn"),
    ],
    ids=["random", "ghn-slots", "ghn-small"],
)
@pytest.mark.parametrize(
    "name",
    ["mobilenetv3-11x48", "convnext-12x320", "swin-6x192", "vit-12x192", "gpt2-6x384", "gpt_neox-6x256"],
)
def test_runs_start_where_the_curves_do(name: str, checkpoint: str, folder: str, arm: str) -> None:
    config = EvaluateConfig.preset(
        "cpu",
        images=str(DATA / "cifar10"),
        text=str(DATA / "english"),
        transfer_images="",
        transfer_text="",
        max_parameters=30_000_000,
        checkpoint=checkpoint,
    )
    (case,) = cases(config, name)
    plan = comparison(config, case, arm, "")
    task = make_task(plan)
    budget = replace(Budget.of(plan, task, *batches_of(plan, task)), steps=0)
    run = train_run(task, plan, budget, make_accelerator(plan), arm, 0, plan.lr[0], lambda: None)
    assert run.curve[0].loss == pytest.approx(first_losses(folder)[name, arm], rel=1e-4)
