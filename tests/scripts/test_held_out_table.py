"""What README, the results page and the model card say of held-out models is what the evaluation has measured."""

import csv
import json
import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from types import ModuleType

import pytest

from ghn.hypernetwork import GHN

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("held_out_table")


def test_pages_hold_the_figures_of_the_last_evaluation(script: ModuleType) -> None:
    for path in script.PAGES:
        assert script.refresh(path) == path.read_text(), (
            f"{path} is out of date: python scripts/held_out_table.py"
        )


@pytest.mark.parametrize("folder", ["SLOTS", "SMALL"])
def test_the_tables_leave_no_network_out(script: ModuleType, folder: str) -> None:
    results = script.HeldOut(getattr(script, folder))
    with (results.folder / "models.csv").open(newline="") as file:
        measured = {
            row["model"] for row in csv.DictReader(file) if row["arm"] == "ghn" and row["transfer"] == "False"
        }
    assert set(results.names) == measured and (folder == "SLOTS" or measured == set(script.NAMES))
    tables = (script.summary, script.transferred, script.brief) if folder == "SLOTS" else (script.summary,)
    for table in (write(results) for write in tables):
        counts = [int(line.split()[1]) for line in table.splitlines()[2:]]
        assert sum(counts) == len(measured) and len(counts) == len(script.KINDS)
    table = script.slots_table(results) if folder == "SLOTS" else script.small_table(results)
    assert all(table.count(f"\n| {name} |") == 1 for model, name in script.NAMES.items() if model in measured)


@pytest.mark.parametrize(("folder", "checkpoint"), [("SLOTS", None), ("SMALL", "ghn-small")])
def test_the_checkpoints_that_were_measured_are_those_that_ship(
    script: ModuleType, folder: str, checkpoint: str | None
) -> None:
    results = json.loads((getattr(script, folder) / "results.json").read_text())
    assert results["checkpoint_digest"] == GHN.from_pretrained(checkpoint).fingerprint()


PAIR = r"(\d+\.\d+) ± (\d+\.\d+) → (\d+\.\d+) ± (\d+\.\d+)(\*?)"


def test_pairs_in_the_text_are_rows_of_the_results(script: ModuleType) -> None:
    """Longer trainings, whole images, other optimizers: random and ``ghn`` of a model, a star where p < 0.05."""
    measured: dict[tuple[str, ...], bool] = {}
    for path in script.RESULTS.glob("held-out-*/models.csv"):
        with path.open(newline="") as file:
            rows = {(row["model"], row["dataset"], row["arm"]): row for row in csv.DictReader(file)}
        for (model, dataset, arm), ghn in rows.items():
            if arm == "ghn":
                figures = _figures(rows[model, dataset, "random"]) + _figures(ghn)
                measured[figures] = float(ghn["p_value"]) < 0.05
    for path in script.PAGES:
        pairs = re.findall(PAIR, " ".join(path.read_text().split()))
        assert len(pairs) > 10 or path in (ROOT / "README.md", script.SLOTS_CARD)  # they have tables alone
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
