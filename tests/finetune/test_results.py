"""Summaries of hand-made curves."""

import math

import pytest

from ghn.finetune.results import Results
from ghn.finetune.run import Point, Run, best_runs
from ghn.finetune.table import long_table, mean_curve


def run(init, seed, lr, metrics, error="", every=10):
    curve = tuple(Point(index * every, 1 - metric, metric) for index, metric in enumerate(metrics))
    return Run(
        init=init,
        seed=seed,
        lr=lr,
        init_seconds=0.1,
        train_seconds=1.0,
        peak_bytes=1,
        curve=curve,
        error=error,
    )


def summarize(runs):
    nothing = {
        name: {} for name in ("model_kwargs", "model_arguments", "budget", "config", "settings", "provenance")
    }
    names = dict.fromkeys(("task", "metric_name", "model", "dataset"), "x")
    return Results(runs=tuple(runs), parameters=1, **names, **nothing).summary()


def test_each_arm_is_summarized_at_its_own_best_rate():
    runs = [
        run("ghn", 0, 0.1, [0.1, 0.5, 0.9]),
        run("ghn", 1, 0.1, [0.1, 0.5, 0.7]),
        run("ghn", 0, 0.2, [0.1, 0.9, 0.6]),
        run("ghn", 1, 0.2, [0.1, 0.9, 0.6]),
        run("random", 0, 0.1, [0.0, 0.1, 0.3]),
        run("random", 1, 0.1, [0.0, 0.1, 0.3]),
        run("random", 0, 0.2, [0.0, 0.1, 0.4]),
        run("random", 1, 0.2, [0.0, 0.3, 0.6]),
    ]
    summary = summarize(runs)
    assert summary["ghn"]["lr"] == 0.1
    assert summary["random"]["lr"] == 0.2
    assert summary["ghn"]["metric_mean"] == pytest.approx(0.8)
    assert summary["ghn"]["metric_sem"] == pytest.approx(math.sqrt(0.02) / math.sqrt(2))
    assert summary["ghn"]["loss_mean"] == pytest.approx(0.2)
    # Random ends at 0.5; ghn's mean is there at step 10, random's own at its last.
    assert summary["ghn"]["steps_to_random_final"] == 10
    assert summary["random"]["steps_to_random_final"] == 20


def test_an_arm_that_never_reaches_random_has_no_step():
    summary = summarize([run("ghn", 0, 0.1, [0.1, 0.2]), run("random", 0, 0.1, [0.1, 0.3])])
    assert summary["ghn"]["steps_to_random_final"] is None
    assert summary["ghn"]["metric_sem"] is None


def test_without_random_there_is_no_goal():
    assert summarize([run("ghn", 0, 0.1, [0.1, 0.2])])["ghn"]["steps_to_random_final"] is None


def test_a_rate_that_diverged_on_one_seed_is_worse_than_one_that_never_did():
    runs = [
        run("random", 0, 0.1, [0.1, 0.2]),
        run("random", 1, 0.1, [0.1, 0.2]),
        run("random", 0, 0.9, [0.1, 0.8]),
        run("random", 1, 0.9, [0.1], error="the loss became nan"),
    ]
    assert {chosen.lr for chosen in best_runs(runs, "random")} == {0.1}


def test_an_arm_that_always_diverged_has_null_figures():
    summary = summarize([run("random", 0, 0.1, [0.1], error="the loss became inf")])
    assert summary["random"]["metric_mean"] is None
    assert summary["random"]["loss_mean"] is None


def test_a_diverged_run_has_null_final_figures_and_comes_back_from_json():
    diverged = run("random", 0, 0.1, [0.1], error="the loss became inf")
    assert diverged.to_dict()["final"] == {"loss": None, "metric": None}
    assert Run.from_dict(diverged.to_dict()) == diverged


def test_mean_curve():
    runs = [run("ghn", 0, 0.1, [0.0, 0.4]), run("ghn", 1, 0.1, [0.2, 0.4])]
    curve = mean_curve(long_table(runs, runs, model="m", dataset="d"), "metric")
    assert list(curve.index) == [("ghn", 0), ("ghn", 10)]
    assert curve.to_numpy().ravel().tolist() == pytest.approx([0.1, 0.1, 0.4, 0.0])


def test_the_long_table_has_a_row_for_each_evaluation_of_each_run():
    better, worse = run("ghn", 0, 0.1, [0.0, 0.4, 0.9]), run("ghn", 0, 0.2, [0.0, 0.2, 0.3])
    failed = run("random", 0, 0.1, [], error="the loss became nan")
    table = long_table([better, worse, failed], [better, failed], model="m", dataset="d")
    assert len(table) == 7
    assert table.groupby("lr")["tuned"].all().tolist() == [True, False]
    assert table[table["diverged"]][["arm", "step"]].to_numpy().tolist() == [["random", 0]]
    assert table[table["step"] == 20]["metric"].tolist() == [0.9, 0.3]
