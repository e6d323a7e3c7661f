"""The suite of users' networks, and how it is judged."""

import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import users
from user_networks import SUITE


@pytest.mark.parametrize("name", SUITE)
def test_every_network_learns_from_both_starts(name):
    network, task = SUITE[name], users.task_of(name)
    assert len(network.rates) == 3 and network.description and task.steps >= 30
    for arm in users.ARMS:
        model = users.started(task, arm, seed=0)
        before = users.digest(model)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            loss = task.loss(model, *(tensor[: task.size] for tensor in task.train))
        loss.backward()
        assert math.isfinite(loss.item())
        assert users.digest(users.started(task, arm, seed=0)) == before


def test_starts_of_both_arms_differ_but_for_swapped_roles():
    task = users.task_of("mlp-digits")
    own, swapped = (users.started(task, arm, seed=1) for arm in ("own", "ghn/bias"))
    assert torch.equal(own[0].bias, swapped[0].bias)
    assert not torch.equal(own[0].weight, swapped[0].weight)


def test_what_is_evaluated_is_the_same_every_time():
    task = users.task_of("vae-linear")
    model = users.started(task, "own", seed=0)
    assert users.evaluated(model, task) == users.evaluated(model, task)


def runs(network, arm, losses):
    return [
        users.Run(network, arm, rate, seed, "0" * 12, 2 * loss, loss, 1.0, "")
        for rate, loss in zip(SUITE[network].rates, losses, strict=True)
        for seed in users.SEEDS
    ]


def test_each_arm_counts_at_its_own_best_rate():
    (found,) = users.compare([*runs("gcn", "own", (4, 2, 3)), *runs("gcn", "ghn", (1, 3, math.inf))], "ghn")
    assert (found.own_rate, found.rate) == (SUITE["gcn"].rates[1], SUITE["gcn"].rates[0])
    assert (found.ratio, found.tenth, found.same) == (0.5, 0.5, 1.5)


def test_an_arm_with_runs_missing_is_not_compared():
    assert not users.compare([*runs("gcn", "own", (4, 2, 3)), *runs("gcn", "ghn", (1, 3, 5))[1:]], "ghn")


def test_rows_are_read_as_they_were_written_and_the_last_of_each_counts(tmp_path):
    first, *others = runs("gcn", "own", (4, 2, 3))
    users.write(tmp_path / "a.csv", [first, *others])
    users.write(tmp_path / "a.csv", [dataclasses.replace(first, end=7.0)], append=True)
    read = users.read(tmp_path / "a.csv")
    assert read[first.key].end == 7.0 and len(read) == 1 + len(others)


def test_a_known_run_of_the_same_start_is_not_repeated():
    start = users.digest(users.started(users.task_of("gcn"), "own", 0))
    known = users.Run("gcn", "own", 1e-3, 0, start, 2.0, 1.0, 1.0, "")
    assert users.run("gcn", "own", 1e-3, 0, known, "") is known
