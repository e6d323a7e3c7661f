"""What README and the model card say of held-out models is what the evaluation has measured."""

import csv
import importlib.util
import json
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
        assert script.refreshed(path) == path.read_text(), (
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
