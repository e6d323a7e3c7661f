"""The suite of users' networks, and how it is judged."""

import copy
import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import users
from user_networks import SUITE, training


@pytest.mark.parametrize("name", SUITE)
def test_every_network_learns_from_both_starts(name):
    network, task = SUITE[name], users.task_of(name)
    assert len(network.rates) == 3 and network.description and task.steps >= 30
    for arm in users.ARMS:
        model = users.build(task, arm, seed=0)
        before = users.digest(model)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            loss = task.loss(model, *(tensor[: task.size] for tensor in task.train))
        loss.backward()
        assert math.isfinite(loss.item())
        assert users.digest(users.build(task, arm, seed=0)) == before


def test_starts_of_both_arms_differ_but_for_swapped_roles():
    task = users.task_of("mlp-digits")
    own, swapped = (users.build(task, arm, seed=1) for arm in ("own", "ghn/bias"))
    assert torch.equal(own[0].bias, swapped[0].bias)
    assert not torch.equal(own[0].weight, swapped[0].weight)


def test_what_is_evaluated_is_the_same_every_time():
    task = users.task_of("vae-linear")
    stack = training.Stack([users.build(task, "own", seed) for seed in (0, 1)])
    assert training.evaluate(stack, task) == training.evaluate(stack, task)


@pytest.mark.parametrize("name", ["mlp-digits", "cnn-batch-norm", "lora"])
def test_networks_of_a_stack_learn_as_each_would_alone(name):
    task = dataclasses.replace(users.task_of(name), steps=20)
    models = [users.build(task, "own", seed) for seed in (3, 4, 5)]
    together = training.train([copy.deepcopy(model) for model in models], task, 1e-3, (3, 4, 5))
    apart = dataclasses.replace(task, stacks=False)
    alone = training.train([copy.deepcopy(model) for model in models], apart, 1e-3, (3, 4, 5))
    assert len({end for _, end in alone}) == 3
    torch.testing.assert_close(torch.tensor(together), torch.tensor(alone), rtol=1e-3, atol=0)


def test_the_order_of_examples_depends_on_the_seed_alone():
    task = users.task_of("mlp-digits")
    first, again, other = (next(training.batches(task, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other) and len(first) == task.size


def runs(network, arm, losses, seeds=3, scatter=0.0, seconds=0.1):
    rows = [
        users.Run(
            network, arm, rate, seed, "0" * 12, 2 * loss, loss * (1 + scatter * (-1) ** seed), seconds, ""
        )
        for rate, loss in zip(SUITE[network].rates, losses, strict=True)
        for seed in range(seeds)
    ]
    return {row.key: row for row in rows}


def test_each_arm_counts_at_its_own_best_rate():
    rows = runs("gcn", "own", (4, 2, 3)) | runs("gcn", "ghn", (1, 3, math.inf))
    (found,) = users.comparisons(rows, "ghn")
    assert (found.own_rate, found.rate) == (SUITE["gcn"].rates[1], SUITE["gcn"].rates[0])
    assert (found.ratio, found.tenth, found.same, found.error, found.seeds) == (0.5, 0.5, 1.5, 0, 3)


def test_an_arm_with_runs_missing_is_not_compared():
    rows = runs("gcn", "own", (4, 2, 3)) | runs("gcn", "ghn", (1, 3, 5))
    rows.popitem()
    assert not users.comparisons(rows, "ghn")


def test_seeds_depend_on_scatter_and_time_and_not_on_which_arm_ends_lower():
    def wanted(own, other, **kwargs):
        return users.seeds_for(
            runs("gcn", "own", own, 12) | runs("gcn", "ghn", other, 12, **kwargs), SUITE["gcn"]
        )

    low, high = (1, 1, 1), (2, 2, 2)
    for own, other in ((low, high), (high, low)):
        assert wanted(own, other) == wanted(own, other, scatter=0.02) == 3
        assert wanted(own, other, scatter=0.04) == 6
        assert wanted(own, other, scatter=0.5) == 24
        assert wanted(own, other, scatter=0.5, seconds=6.0) == 3


def test_the_standard_error_is_of_differences_between_runs_of_one_seed():
    rows = runs("gcn", "own", (1, 2, 2), 12, scatter=0.3) | runs("gcn", "ghn", (1, 2, 2), 12, scatter=0.3)
    assert users.compare(rows, SUITE["gcn"], "ghn", 12).error == 0
    rows |= runs("gcn", "ghn", (1, 2, 2), 12)
    assert users.compare(rows, SUITE["gcn"], "ghn", 12).error == pytest.approx(0.3 / math.sqrt(11))


def test_rows_are_read_as_they_were_written_and_the_last_of_each_counts(tmp_path):
    first, *others = runs("gcn", "own", (4, 2, 3)).values()
    users.write(tmp_path / "a.csv", [first, *others])
    users.write(tmp_path / "a.csv", [dataclasses.replace(first, end=7.0)], append=True)
    read = users.read(tmp_path / "a.csv")
    assert read[first.key].end == 7.0 and len(read) == 1 + len(others)


def test_known_runs_of_the_same_starts_are_not_repeated():
    starts = [users.digest(users.build(users.task_of("gcn"), "own", seed)) for seed in range(3)]
    known = [dataclasses.replace(r, start=starts[r.seed]) for r in runs("gcn", "own", (4, 2, 3)).values()]
    assert users.run("gcn", "own", range(3), known, "") == known
