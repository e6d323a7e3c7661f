"""Damaged checkpoints are refused; what looks odd and is sound loads."""

import sys
from itertools import islice
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from robust import damage


@pytest.fixture
def good(tmp_path):
    folders = {slots: tmp_path / f"good-{slots}" for slots in (False, True)}
    for slots, folder in folders.items():
        damage.save_good(folder, slots)
    return folders


@pytest.mark.parametrize("case", list(damage.sound_cases()), ids=lambda case: case[0])
def test_sound_checkpoints_load(good, tmp_path, case):
    outcome = damage.attempt(*case, good, tmp_path / "case")
    assert outcome.loaded, outcome.message


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_damaged_checkpoints_are_refused_in_one_line(good, tmp_path, every):
    cases = islice(damage.bad_cases(), 0, None, every)
    outcomes = [damage.attempt(*case, good, tmp_path / str(number)) for number, case in enumerate(cases)]
    assert len(outcomes) * every >= 500
    assert not [outcome for outcome in outcomes if not outcome.refused]
    assert not list(tmp_path.rglob(damage.MARK))
