"""Train every arm of every case; finished runs are kept, so that an evaluation can be stopped at any time."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator

from ghn.apply.rules import own_rules
from ghn.arms import ArmSettings, arm_of
from ghn.base import registered
from ghn.data.load import load_images, load_text
from ghn.errors import ConfigError
from ghn.evaluate.config import ArmsConfig, Case, EvaluateConfig, comparison
from ghn.finetune.choose import batches_of, make_task
from ghn.finetune.config import CompareConfig
from ghn.finetune.loop import Budget, make_accelerator, train_run
from ghn.finetune.run import Run, best_runs
from ghn.finetune.run_folder import ComparisonFolder, RunFolder
from ghn.finetune.runs import Make, Runs
from ghn.finetune.table import long_table
from ghn.finetune.task import ModelTask

RECORD = "case.json"
"""Written when all arms of a case are complete: the rate of each."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All arms of one case."""

    case: Case
    parameters: int
    metric: str
    """Name of the metric; more is better."""
    tuned: dict[str, list[Run]]
    """Runs of every seed at the arm's best rate, by arm, in the order of the seeds."""
    tuning: dict[str, list[Run]]
    """Runs of the first seed at every rate that was tried, by arm."""

    def table(self) -> pd.DataFrame:
        """The long table of all runs: see ``ghn.finetune.table``."""
        groups = [runs for each in (self.tuning, self.tuned) for runs in each.values()]
        every = {(run.init, run.seed, run.lr): run for runs in groups for run in runs}
        architecture = self.case.architecture
        return long_table(
            every.values(),
            [run for runs in self.tuned.values() for run in runs],
            model=self.case.name,
            dataset=self.case.data,
            spec=architecture.spec,
            family=architecture.family,
            parameters=self.parameters,
            transfer=self.case.transfer,
        )


def check_cases(config: EvaluateConfig, cases: Sequence[Case]) -> None:
    """Check settings and data before anything is written.

    Raises:
        GhnError: A kind of it for every mistake: a setting out of range, data that can't be opened or are of the other
            kind.
    """
    for case in cases:
        for arm in _arms(config, case):
            comparison(config, case, arm, "")
    for task, dataset in sorted({(case.task, case.dataset) for case in cases}):
        (load_text if task == "text" else load_images)(dataset)


def evaluate_case(config: EvaluateConfig, case: Case, folder: Path) -> None:
    """Train all arms of one case: the first seed finds the best rate, the others run at it.

    Args:
        config: Settings.
        case: From ``cases``.
        folder: Gets a folder for each arm of the case; runs that are there already are not done again.

    Raises:
        GhnError: A kind of it for every mistake: data or a checkpoint that can't be used, runs with other settings in
            the folder.
    """
    arms = _arms(config, case)
    outcome = outcome_of(config, case, folder)
    if outcome and set(arms) <= outcome.tuned.keys():
        return
    plans = {arm: comparison(config, case, arm, str(case_folder(folder, case) / arm)) for arm in arms}
    accelerator = make_accelerator(plans["random"])
    if accelerator.num_processes > 1:
        raise ConfigError(
            "an evaluation runs in one process; start one for each part: --part 1/2, --part 2/2"
        )
    task = make_task(plans["random"])
    parameters = task.check()
    with registered(*own_rules(config.rules)):
        rates = _best_rates(config, case, task, plans, accelerator)
    rates = _read_record(folder, case).get("rates", {}) | rates  # another process may have added other arms
    record = {"parameters": parameters, "metric": task.metric_name, "rates": rates}
    RunFolder(case_folder(folder, case)).write_json(RECORD, record)


def _best_rates(
    config: EvaluateConfig,
    case: Case,
    task: ModelTask,
    plans: dict[str, CompareConfig],
    accelerator: Accelerator,
) -> dict[str, float]:
    """Each arm's best rate, at which all seeds are there."""
    budget = Budget.of(plans["random"], task, *batches_of(plans["random"], task))
    firsts: dict[str, tuple[str, Runs]] = {}  # arms that start from equal weights are trained once
    rates = {}
    for arm, plan in plans.items():
        start = starting_weights(arm, task, plan)
        make: Make = partial(train_run, task, plan, budget, accelerator)
        if start in firsts:
            make = partial(_copy, *firsts[start])
        folder = ComparisonFolder(plan, task.dataset)
        shown = start not in firsts
        runs = Runs(make, budget.steps, folder, folder.finished(), f"{case.name}, ", shown)
        firsts.setdefault(start, (arm, runs))
        rates[arm] = best_rate(runs, arm, config.seeds[0], sorted(config.lr))
        runs.get([(arm, seed, rates[arm]) for seed in config.seeds])
    return rates


def outcome_of(config: ArmsConfig, case: Case, folder: Path) -> Outcome | None:
    """What a folder holds about a case: the arms with a run of every seed at their best rate; None without any.

    Raises:
        OutputError: If a file in the folder is damaged.
    """
    record = _read_record(folder, case)
    if not record:
        return None
    tuned: dict[str, list[Run]] = {}
    tuning: dict[str, list[Run]] = {}
    for arm, rate in record["rates"].items():
        arm_folder = RunFolder(case_folder(folder, case) / arm)
        runs = sorted(arm_folder.finished().values(), key=lambda run: (run.seed, run.lr))
        best = [run for run in runs if run.lr == rate and run.seed in config.seeds]
        if len(best) == len(config.seeds):
            tuned[arm] = best
            tuning[arm] = [run for run in runs if run.seed == config.seeds[0]]
    if not tuned:
        return None
    return Outcome(
        case=case,
        parameters=record["parameters"],
        metric=record["metric"],
        tuned=tuned,
        tuning=tuning,
    )


def _arms(config: ArmsConfig, case: Case) -> tuple[str, ...]:
    return config.transfer_arms if case.transfer else config.arms


def case_folder(folder: Path, case: Case) -> Path:
    """Folder that holds a folder of runs for each arm of a case."""
    return folder / "runs" / case.name / ("transfer" if case.transfer else "main")


def _read_record(folder: Path, case: Case) -> dict[str, Any]:
    return RunFolder(case_folder(folder, case)).read(RECORD, "delete it, and finished runs are counted again")


def _copy(
    first: str, runs: Runs, arm: str, seed: int, lr: float, on_step: Callable[[], None] = lambda: None
) -> Run:
    """A run of an arm that starts from the same weights as another one."""
    (run,) = runs.get([(first, seed, lr)])
    return replace(run, init=arm)


def best_rate(runs: Runs, arm: str, seed: int, grid: list[float]) -> float:
    """The best of three rates from the middle of the grid; while that is an outermost one, the next is tried too."""
    low, high = (max(0, len(grid) // 2 - 1), min(len(grid), len(grid) // 2 + 2))
    while True:
        trials = runs.get([(arm, seed, rate) for rate in grid[low:high]])
        best = best_runs(trials, arm)[0].lr
        if best == grid[low] and low > 0:
            low -= 1
        elif best == grid[high - 1] and high < len(grid):
            high += 1
        else:
            return best


def starting_weights(arm: str, task: ModelTask, plan: CompareConfig) -> str:
    """Digest of the weights that an arm starts from: 'mimetic' starts from random's where there is no attention."""
    model = task.build(0)
    settings = ArmSettings(inputs=task.example(), checkpoint=plan.checkpoint, examples=task.examples)
    arm_of(arm)(model, settings)
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
