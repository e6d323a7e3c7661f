"""What a comparison finds: runs with their curves, and each arm's summary at its own best learning rate."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from ghn.finetune.run import Run, best_runs
from ghn.finetune.run_folder import SCHEMA
from ghn.finetune.table import arms, long_table, plain

SUMMARY = ("lr", "metric_mean", "metric_sem", "loss_mean", "steps_to_random_final")
"""Figures of each arm in ``results.json``; see ``ghn.finetune.table.arms``."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole comparison; ``to_dict`` is the content of ``results.json``."""

    task: str
    metric_name: str
    model: str
    model_kwargs: dict[str, Any]
    """The user's own arguments of the model."""
    model_arguments: dict[str, Any]
    """All that the model was constructed with: also what data set and task imply."""
    parameters: int
    dataset: str
    budget: dict[str, int]
    config: dict[str, Any]
    """The user's configuration; None where a default depends on the rest."""
    settings: dict[str, Any]
    """The configuration that ran: every default filled in, and what doesn't apply left out."""
    runs: tuple[Run, ...]
    provenance: dict[str, Any]
    output_dir: str = ""
    """Folder that the results were written to."""

    @property
    def inits(self) -> list[str]:
        """Arms, in the order that they were asked for."""
        return list(dict.fromkeys(run.init for run in self.runs))

    @cached_property
    def table(self) -> pd.DataFrame:
        """See ``ghn.finetune.table``."""
        tuned = [run for init in self.inits for run in best_runs(self.runs, init)]
        return long_table(self.runs, tuned, model=self.model, dataset=self.dataset)

    def arms(self) -> pd.DataFrame:
        """See ``ghn.finetune.table.arms``."""
        return arms(self.table)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Figures of each arm, with None for what there is not, such as the standard error of one seed."""
        arms = self.arms().to_dict("index")
        return {str(arm): {name: plain(entry[name]) for name in SUMMARY} for arm, entry in arms.items()}

    def to_dict(self) -> dict[str, Any]:
        """The content of ``results.json``."""
        return {
            "schema": SCHEMA,
            "task": self.task,
            "model": self.model,
            "model_kwargs": self.model_kwargs,
            "parameters": self.parameters,
            "dataset": self.dataset,
            "budget": self.budget,
            "runs": [run.to_dict() for run in self.runs],
            "summary": self.summary(),
            "provenance": self.provenance,
            "metric": self.metric_name,
            "model_arguments": self.model_arguments,
            "config": self.config,
            "settings": self.settings,
        }
