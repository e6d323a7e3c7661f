"""Figures of an evaluation follow from the curves."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest

from ghn.arms import ARMS
from ghn.evaluate import statistics
from ghn.evaluate.config import Case
from ghn.evaluate.report import curves_csv, curves_figure, curves_png, tables_of, write_evaluation
from ghn.evaluate.run import Outcome
from ghn.evaluate.statistics import models, t_test
from ghn.finetune.report import COLOURS
from ghn.finetune.run import Point, Run
from ghn.finetune.run_folder import RunFolder
from ghn.finetune.table import ends
from ghn.spaces import Architecture


def run(init: str, seed: int, final: float, error: str = "") -> Run:
    """A straight line from 0 to its final metric over 10 evaluations."""
    curve = tuple(Point(step, 1.0, final * step / 100) for step in range(0, 101, 10))
    fixed = {"lr": 1e-3, "init_seconds": 0.1, "train_seconds": 1.0, "peak_bytes": 0}
    return Run(init=init, seed=seed, curve=curve, error=error, **fixed)


def outcome(width: int, *, error: str = "", **finals: list[float]) -> Outcome:
    architecture = Architecture(spec="timm:x", family="x", depth=2, width=width)
    tuned = {
        arm: [run(arm, seed, final, error if arm == "ghn" else "") for seed, final in enumerate(values)]
        for arm, values in finals.items()
    }
    return Outcome(
        case=Case(architecture, "digits", False), parameters=10, metric="accuracy", tuned=tuned, tuning=tuned
    )


def rows(outcome: Outcome) -> list:
    """Rows of ``models.csv``, without figures as None."""
    frame = models(outcome.table())
    return list(frame.astype(object).where(frame.notna(), None).itertuples())


def verdicts(outcomes: list[Outcome], pairs: list[tuple[str, str]]) -> list:
    frame = statistics.verdicts(pd.concat([each.table() for each in outcomes]), pairs)
    return list(frame.astype(object).where(frame.notna(), None).itertuples())


def markdown(*outcomes: Outcome) -> str:
    table = pd.concat([each.table() for each in outcomes])
    tables = tables_of(models(table), statistics.verdicts(table, [("ghn", "random")]))
    return "\n\n".join(each.markdown() for each in tables)


BETTER = outcome(1, random=[0.4, 0.5, 0.6], ghn=[0.5, 0.61, 0.7], base=[0.4, 0.5, 0.6])
WORSE = outcome(2, random=[0.5, 0.5, 0.5], ghn=[0.4, 0.41, 0.39], base=[0.5, 0.5, 0.5])
DIVERGED = outcome(3, error="the loss became nan", random=[0.5, 0.5], ghn=[0.4, 0.4])


def test_rows_give_means_errors_and_paired_differences() -> None:
    random, ghn, base = rows(BETTER)
    assert (random.arm, random.metric_100) == ("random", pytest.approx(0.5))
    assert random.metric_10 == pytest.approx(0.05)
    assert random.sem_100 == pytest.approx(0.1 / 3**0.5)
    assert ghn.difference == pytest.approx(0.31 / 3)
    assert ghn.difference_sem == pytest.approx(0.01 / 3)
    assert ghn.p_value is not None and ghn.p_value < 0.01
    assert ghn.steps_to_random_final == 90
    assert base.difference == 0 and base.p_value is None


def test_verdicts_count_models_and_significant_ones() -> None:
    found = {(v.arm, v.against, v.share): v for v in verdicts([BETTER, WORSE], [("ghn", "random")])}
    final = found["ghn", "random", 1.0]
    assert (final.models, final.wins, final.losses) == (2, 1, 1)
    assert (final.significant_wins, final.significant_losses) == (1, 1)
    assert final.mean_difference == pytest.approx((0.31 / 3 - 0.1) / 2)
    assert final.median_steps_share == pytest.approx(0.95)
    assert found["ghn", "random", 0.1].median_steps_share is None
    against_base = [v for v in verdicts([BETTER, WORSE], [("ghn", "base")]) if v.share == 1.0]
    assert [v.median_steps_share for v in against_base] == [None]


def test_diverged_runs_lose_and_show() -> None:
    (final,) = [v for v in verdicts([DIVERGED], [("ghn", "random")]) if v.share == 1.0]
    assert (final.wins, final.losses, final.diverged) == (0, 1, 1)
    ghn = rows(DIVERGED)[1]
    assert ghn.metric_100 is None and ghn.difference is None
    assert "diverged" in markdown(DIVERGED)


def test_runs_that_failed_at_once_are_reported() -> None:
    failed = replace(
        DIVERGED, tuned=DIVERGED.tuned | {"ghn": [replace(run, curve=()) for run in DIVERGED.tuned["ghn"]]}
    )
    random, ghn = rows(failed)
    assert random.steps == ghn.steps == 100
    assert ghn.metric_10 is None
    assert curves_png([failed]).startswith(b"\x89PNG")


def test_reports_hold_every_model_and_arm() -> None:
    text = markdown(BETTER, WORSE)
    assert "x-2x1" in text and "x-2x2" in text and "random | ghn | base" in text
    assert len(curves_csv(pd.concat([BETTER.table(), WORSE.table()])).splitlines()) == 1 + 2 * 3 * 3 * 11
    assert curves_png([BETTER, WORSE]).startswith(b"\x89PNG")


def test_an_arm_without_rules_is_counted_against_random_and_the_whole(tmp_path) -> None:
    arms = {"ghn": [0.5, 0.6], "ghn-without-fan_in": [0.4, 0.45], "random": [0.3, 0.3]}
    found = write_evaluation([outcome(1, **arms)], {}, RunFolder(tmp_path))
    counted = {(v.arm, v.against): (v.wins, v.losses) for v in found.itertuples() if v.share == 1.0}
    assert counted["ghn-without-fan_in", "random"] == (1, 0)
    assert counted["ghn-without-fan_in", "ghn"] == (0, 1)


def test_the_page_holds_tables_and_pictures_and_leads_to_the_files(tmp_path) -> None:
    settings = {"preset": "cpu", "config": {"steps": 100}, "machine": {"cores": 2}}
    write_evaluation([BETTER, WORSE, DIVERGED], settings, RunFolder(tmp_path))
    text = (tmp_path / "report.html").read_text()
    assert "<h1>Initializations on 3 held-out models</h1>" in text
    assert text.count("<table>") == 2 and text.count("<img") == 1 and "<td>diverged</td>" in text
    assert "<tr><td>steps</td><td>100</td></tr>" in text
    links = re.findall('href="([^"]+)"', text)
    assert {"models.csv", "verdicts.csv", "curves.csv", "curves-digits.png"} <= {*links}
    assert all((tmp_path / link).is_file() for link in links)
    results = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert {row["arm"] for row in results["models"]} == {"random", "ghn", "base"}


def test_verdicts_of_no_pair_are_an_empty_table(tmp_path) -> None:
    found = write_evaluation([outcome(1, random=[0.1, 0.2])], {}, RunFolder(tmp_path))
    assert found.empty and (tmp_path / "report.html").exists()
    assert json.loads((tmp_path / "results.json").read_text())["verdicts"] == []


def test_an_arm_has_one_colour_in_all_plots() -> None:
    assert COLOURS.keys() == ARMS.keys() and len({*COLOURS.values()}) == len(ARMS)
    other = outcome(2, random=[0.5, 0.5], mimetic=[0.3, 0.3], ghn=[0.4, 0.41])  # ghn comes third, not second
    figure = curves_figure([BETTER, other])
    shown = [[line.get_color() for line in plot.get_lines()] for plot in figure.axes]
    assert shown == [[COLOURS[arm] for arm in each.tuned] for each in (BETTER, other)]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["random", "ghn", "base", "mimetic"]


def test_table_names_the_arm_whose_steps_it_shows() -> None:
    without = outcome(1, random=[0.4, 0.5, 0.6], base=[0.5, 0.61, 0.7])
    assert "steps (base) |" in markdown(without) and "| 90 of 100 |" in markdown(without)
    assert "steps (ghn) |" in markdown(BETTER)


def test_share_of_the_budget_is_the_first_evaluation_after_it() -> None:
    assert ends(BETTER.table(), 0.25)["random"].tolist() == pytest.approx([0.12, 0.15, 0.18])


def test_differences_without_any_doubt_count_as_significant(monkeypatch) -> None:
    monkeypatch.setattr("ghn.evaluate.statistics.t_test", lambda differences: 0.0)
    assert [verdict.significant_wins for verdict in verdicts([BETTER], [("ghn", "random")])] == [1, 1, 1]


def test_t_test_needs_two_different_values() -> None:
    def test(*differences: float) -> float | None:
        return t_test(pd.Series(differences))

    assert test(0.1) is None and test(0.1, 0.1) is None
    assert test(0.432 - 0.4, 0.532 - 0.5, 0.632 - 0.6) is None  # different in their last bits alone
    assert test(0.1, 0.2, 0.15) == pytest.approx(0.0351, abs=1e-3)
