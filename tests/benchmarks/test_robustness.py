"""Generated networks are predicted, damaged checkpoints refused, killed commands done again."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from robust import damage, networks

from ghn.hypernetwork import GHN

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "robustness.py"


PARTS = [pytest.param(range(first, first + 100), marks=pytest.mark.slow) for first in range(25, 525, 100)]


@pytest.mark.parametrize("seeds", [range(25), *PARTS], ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_generated_networks_are_predicted(seeds):
    net = GHN.from_pretrained()
    found = {seed: networks.complaints(seed, net) for seed in seeds}
    assert {seed: wrong for seed, wrong in found.items() if wrong} == {}


def test_a_network_that_comes_out_wrong_is_told(monkeypatch):
    net = GHN.from_pretrained()

    def careless(model, inputs, learned):
        report = GHN.init_(net, model, inputs, learned=learned)
        with torch.no_grad():
            next(model.parameters()).view(-1)[0] = float("nan")
        return report

    monkeypatch.setattr(net, "init_", careless)
    assert {"a parameter is not finite", "an output is not finite"} <= set(networks.complaints(0, net))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_killed_commands_come_to_the_same_end(tmp_path):
    arguments = [
        "--only",
        "kills",
        "--moments",
        "1",
        "--changes",
        "3",
        "--results",
        str(tmp_path / "results.json"),
    ]
    subprocess.run([sys.executable, SCRIPT, *arguments], check=True)
    table = json.loads((tmp_path / "results.json").read_text())["kills"]
    assert table["complaints"] == []
    assert table["summary"]["killed"] >= 3 * len(
        table["commands"]
    )  # before a change of a file, whatever the time


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
