"""What README, the results page and the model card say of held-out models is what the evaluation has measured."""

import csv
import importlib.util
import json
import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from types import ModuleType

import pytest

from ghn.hypernetwork import GHN

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("held_out_table", ROOT / "scripts" / "held_out_table.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_hold_the_figures_of_the_last_evaluation(script: ModuleType) -> None:
    for path in script.PAGES:
        assert script.refresh(path) == path.read_text(), (
            f"{path} is out of date: python scripts/held_out_table.py"
        )


def test_the_table_leaves_no_model_out(script: ModuleType) -> None:
    with script.RESULTS.open(newline="") as file:
        measured = {
            row["model"] for row in csv.DictReader(file) if row["arm"] == "ghn" and row["transfer"] == "False"
        }
    named = [model for models in script.GROUPS.values() for model in models]
    assert sorted(named) == sorted(measured)
    counts = [int(line.split()[1]) for line in script.summary().splitlines()[2:]]
    assert sum(counts) == len(measured) and len(counts) == len(script.KINDS)


def test_the_checkpoint_that_was_measured_is_the_one_that_ships(script: ModuleType) -> None:
    results = json.loads((script.RESULTS.parent / "results.json").read_text())
    assert results["checkpoint_digest"] == GHN.from_pretrained().fingerprint()


PAIR = r"(\d+\.\d+) ± (\d+\.\d+) → (\d+\.\d+) ± (\d+\.\d+)(\*?)"


def test_pairs_in_the_text_are_rows_of_the_results(script: ModuleType) -> None:
    """Longer trainings, whole images, other optimizers: random and ``ghn`` of a model, a star where p < 0.05."""
    measured: dict[tuple[str, ...], bool] = {}
    for path in script.RESULTS.parents[1].glob("held-out-*/models.csv"):
        with path.open(newline="") as file:
            rows = {(row["model"], row["dataset"], row["arm"]): row for row in csv.DictReader(file)}
        for (model, dataset, arm), ghn in rows.items():
            if arm == "ghn":
                figures = _figures(rows[model, dataset, "random"]) + _figures(ghn)
                measured[figures] = float(ghn["p_value"]) < 0.05
    for path in script.PAGES:
        pairs = re.findall(PAIR, " ".join(path.read_text().split()))
        assert len(pairs) > 10 or (
            path.name == "README.md" and path.parent == ROOT
        )  # README leads to the results
        starred = any(
            star for *_, star in pairs
        )  # the card says which ones are significant, the results page in words
        for *figures, star in pairs:
            assert tuple(figures) in measured, f"{path} has {figures}, the results don't"
            assert not starred or bool(star) == measured[tuple(figures)], figures


def _figures(row: dict[str, str]) -> tuple[str, ...]:
    text = float(row["metric_100"]) < 0
    scale, unit = (1, "0.001") if text else (100, "0.1")
    found = [abs(Decimal(row[column])) * scale for column in ("metric_100", "sem_100")]
    return tuple(str(value.quantize(Decimal(unit), ROUND_HALF_UP)) for value in found)
