"""The script leaves complete files, goes on after a stop, and refuses what can't be compared."""

import csv
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from ghn.encoder import EncoderConfig
from ghn.errors import ConfigError, DataError, OutputError
from ghn.evaluate import run as running
from ghn.evaluate.config import EvaluateConfig, cases, comparison
from ghn.evaluate.options import evaluate_command, main
from ghn.evaluate.run import outcome_of
from ghn.finetune.run import Point, Run
from ghn.finetune.run_folder import RunFolder
from ghn.hypernetwork import GHN, GHNConfig

ROOT = Path(__file__).parents[2]


def options_in(folder: Path) -> dict:
    """A small evaluation in a folder, with an untrained hypernetwork beside it."""
    torch.manual_seed(0)
    GHN(GHNConfig(encoder=EncoderConfig(hidden=16, layers=1, heads=2))).save_pretrained(folder / "net")
    return {
        "output": folder / "out",
        "images": "digits",
        "text": "",
        "transfer_images": "",
        "transfer_text": "",
        "checkpoint": str(folder / "net"),
        "seeds": [0, 1],
        "lr": [1e-3, 1e-2],
        "steps": 10,
        "eval_samples": 32,
        "models": "mobilenetv3-11x48",
        "device": "cpu",
    }


@pytest.fixture
def options(tmp_path: Path) -> dict:
    return options_in(tmp_path)


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Path:
    """An evaluation of two arms that need no checkpoint, run once for all tests that go on from one."""
    given = {**options_in(tmp_path_factory.mktemp("once")), "checkpoint": "never/read"}
    evaluate_command(**given, arms=["random", "orthogonal"])
    return given["output"]


@pytest.fixture
def finished(once: Path, options: dict) -> dict:
    """Options of an evaluation whose folder is a copy of that one."""
    shutil.copytree(once, options["output"])
    return options


def test_arms_are_added_to_a_folder_without_doing_runs_again(options: dict, monkeypatch) -> None:
    evaluate_command(**options, arms=["random", "mimetic"])
    trained = []
    train_run = running.train_run
    monkeypatch.setattr(running, "train_run", lambda *given: trained.append(given[4:]) or train_run(*given))
    evaluate_command(**options, arms=["random", "ghn"])
    assert [(arm, seed) for arm, seed, *_ in trained] == [("ghn", 0), ("ghn", 0), ("ghn", 1)]
    with (options["output"] / "models.csv").open() as file:
        rows = {row["arm"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"random", "mimetic", "ghn"}
    # No attention: mimetic is random, and costs nothing.
    assert rows["mimetic"]["metric_100"] == rows["random"]["metric_100"]
    results = json.loads((options["output"] / "results.json").read_text())
    assert results["config"]["checkpoint"] == "net" and len(results["commits"]) == 1
    assert {verdict["arm"] for verdict in results["verdicts"]} == {"ghn", "mimetic"}
    for name in ("table.md", "verdicts.csv", "curves.csv", "curves-digits.png"):
        assert (options["output"] / name).stat().st_size > 0
    # A call for another model drops no row, nor does one for smaller models alone.
    evaluate_command(**{**options, "models": "mobilenetv3-11x96"}, arms=["random", "orthogonal"])
    evaluate_command(**options, arms=["random"], max_parameters=600_000)
    with (options["output"] / "models.csv").open() as file:
        table = [(row["model"], row["arm"]) for row in csv.DictReader(file)]
    assert {("mobilenetv3-11x48", "ghn"), ("mobilenetv3-11x96", "orthogonal")} <= set(table)
    results = json.loads((options["output"] / "results.json").read_text())
    assert results["config"]["arms"] == ["random", "mimetic", "ghn", "orthogonal"]


def test_arms_leave_rules_out(options: dict) -> None:
    arm = "base-without-conv_batch_norm"
    evaluate_command(**options, arms=["random", arm])
    with (options["output"] / "models.csv").open() as file:
        assert [row["arm"] for row in csv.DictReader(file)] == ["random", arm]
    with pytest.raises(ConfigError, match=r"no rule 'fanin'\. Did you mean 'fan_in'"):
        evaluate_command(**options, arms=["random", "base-without-fanin"])
    # A rule of one's own is followed by base alone, and may be left out again.
    own = options["output"].parent / "own.py"
    own.write_text(
        "from ghn.base import Init, Rule\n"
        "class FlatHeads(Rule):\n"
        "    roles = frozenset({'linear'})\n"
        "    def applies(self, p): return p.feeds_outputs\n"
        "    def init(self, p): return Init(distribution='constant')\n"
    )
    arms = ["random", "base", "base-without-flat_heads"]
    evaluate_command(**options, arms=arms, rules=[f"{own}:FlatHeads"])
    with (options["output"] / "curves.csv").open() as file:
        first = {row["arm"]: float(row["loss"]) for row in csv.DictReader(file) if row["step"] == "0"}
    assert first["base"] == pytest.approx(math.log(10), abs=1e-4) != first["base-without-flat_heads"]


def test_what_another_process_has_added_meanwhile_is_kept(options: dict, monkeypatch) -> None:
    train_run = running.train_run

    def first_of_two(*given):
        monkeypatch.setattr(running, "train_run", train_run)
        evaluate_command(**options, arms=["random", "orthogonal"])
        return train_run(*given)

    monkeypatch.setattr(running, "train_run", first_of_two)
    evaluate_command(**options, arms=["random", "base"])
    with (options["output"] / "models.csv").open() as file:
        assert {row["arm"] for row in csv.DictReader(file)} == {"random", "orthogonal", "base"}


def test_incomplete_cases_are_not_reported(options: dict, monkeypatch) -> None:
    calls = []
    train_run = running.train_run

    def stopped(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train_run(*given)

    monkeypatch.setattr(running, "train_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate_command(**options, arms=["random"])
    config = EvaluateConfig(
        images="digits", text="", transfer_images="", transfer_text="", seeds=(0, 1), steps=10
    )
    (case,) = cases(config, options["models"])
    assert outcome_of(config, case, options["output"]) is None
    evaluate_command(**options, arms=["random"])
    assert len(calls) == 4  # two rates and the other seed, of which the last was tried twice
    outcome = outcome_of(config, case, options["output"])
    assert outcome is not None
    assert [run.seed for run in outcome.tuned["random"]] == [0, 1]
    assert len(outcome.tuning["random"]) == 2


def test_rates_are_tried_until_a_better_one_is_inside(options: dict, monkeypatch) -> None:
    trained = []

    def pretend(task, config, budget, accelerator, arm, seed, lr, *_):
        trained.append((seed, lr))
        metric = -abs(math.log10(lr) + 1)
        return Run(
            init=arm,
            seed=seed,
            lr=lr,
            init_seconds=0,
            train_seconds=0,
            peak_bytes=0,
            curve=(Point(10, 1.0, metric),),
        )

    monkeypatch.setattr(running, "train_run", pretend)
    grid = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    evaluate_command(**{**options, "lr": grid[::-1]}, arms=["random"])
    assert trained == [(0, 1e-3), (0, 1e-2), (0, 1e-1), (0, 1.0), (1, 1e-1)]
    rows = list(csv.DictReader((options["output"] / "models.csv").open()))
    assert [float(row["lr"]) for row in rows] == [1e-1]


def test_a_folder_of_an_earlier_version_is_read_and_continued(tmp_path: Path, monkeypatch) -> None:
    """As commit 71ef984 left it, reduced to one model and the arm random."""
    shutil.copytree(Path(__file__).parent / "earlier", tmp_path / "out")
    monkeypatch.setattr(running, "train_run", lambda *given: pytest.fail("trained"))
    none = dict.fromkeys(("images", "text", "transfer_images"), "")
    random = {"arms": ["random"], "transfer_arms": ["random"]}
    evaluate_command(tmp_path / "out", models="opt-6x256", **none, **random)
    with (tmp_path / "out" / "models.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["model"], row["dataset"], row["lr"], row["seeds"]) == (
        "opt-6x256",
        "python-stdlib",
        "0.0006",
        "3",
    )
    assert row["metric_100"] == "-4.6646" and row["steps_to_random_final"] == "60"
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["config"]["transfer_arms"] == ["random", "base", "ghn"]
    assert len((tmp_path / "out" / "curves.csv").read_text().splitlines()) == 1 + 6 * 11


def test_a_run_whose_file_is_gone_is_done_again(finished: dict) -> None:
    options = finished
    table = (options["output"] / "models.csv").read_text()
    (run,) = options["output"].rglob("orthogonal-seed1-*.json")
    run.unlink()
    evaluate_command(**options, arms=["random", "orthogonal"])
    assert run.exists()
    again = (options["output"] / "models.csv").read_text()
    assert [row[:12] for row in csv.reader(again.splitlines())] == [
        row[:12] for row in csv.reader(table.splitlines())
    ]


@pytest.mark.parametrize(
    "changes", [{"images": "cifar10"}, {"steps": 20}, {"seeds": [5, 6]}, {"lr": [3e-4]}], ids=str
)
def test_other_settings_are_refused_in_a_folder_that_is_complete(finished: dict, changes: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        evaluate_command(**{**finished, **changes}, arms=["random"])


def test_tables_keep_data_sets_that_a_later_call_leaves_out(options: dict, tmp_path: Path) -> None:
    for number in range(8):
        image = tmp_path / "shades" / "train" / f"{number % 2}" / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (32 * number, 0, 0)).save(image)
    options["transfer_steps"] = 10
    evaluate_command(**options, arms=["random"])
    transfer = {"images": "", "transfer_images": "digits", "transfer_arms": ["random"]}
    # One of them is from the call before.
    with pytest.raises(ConfigError, match="'digits' and 'digits' have the same name"):
        evaluate_command(**{**options, **transfer}, arms=["random"])
    transfer["transfer_images"] = str(tmp_path / "shades")
    evaluate_command(**{**options, **transfer}, arms=["random"])
    with (options["output"] / "models.csv").open() as file:
        assert [row["transfer"] for row in csv.DictReader(file)] == ["False", "True"]
    assert json.loads((options["output"] / "results.json").read_text())["config"]["images"] == "digits"


def test_damaged_settings_are_named(options: dict) -> None:
    options["output"].mkdir()
    (options["output"] / "evaluation.json").write_text('{"preset": ')
    with pytest.raises(OutputError, match="is damaged"):
        evaluate_command(**options, arms=["random"])


def test_another_checkpoint_is_refused(finished: dict, tmp_path: Path) -> None:
    options = finished
    evaluate_command(**options, arms=["random", "ghn"])
    torch.manual_seed(1)
    GHN(GHNConfig(encoder=EncoderConfig(hidden=16, layers=1, heads=2))).save_pretrained(tmp_path / "net2")
    running_with = {**options, "checkpoint": str(tmp_path / "net2")}
    with pytest.raises(ConfigError, match="another checkpoint"):
        evaluate_command(**running_with, arms=["random", "ghn"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["ghn"]}, "compared with 'random'"),
        ({"arms": ["random", "gnh"]}, "Did you mean 'ghn'"),
        ({"steps": 15}, "multiple of 10"),
        ({"models": "resnet-1*x1"}, "no model matches"),
        ({"part": "3/2"}, "expected K/N"),
        ({"preset": "tpu"}, "unknown preset"),
        ({"limit_models": 0}, "expected 1 or more"),
        ({"eval_samples": -5}, "expected 1 or more"),
        ({"transfer_arms": ["ghn"]}, "compared with 'random'"),
        ({"lr": [math.nan]}, "lr"),
        ({"images": ""}, "nothing to evaluate"),
    ],
)
def test_mistakes_are_named(options: dict, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate_command(**{**options, **changes})
    assert not options["output"].exists()


def test_data_of_the_other_kind_are_refused_before_anything_is_written(options: dict) -> None:
    with pytest.raises(DataError, match="holds text where images are asked for"):
        evaluate_command(**{**options, "images": "python-stdlib"}, arms=["random"])
    assert not options["output"].exists()


def test_presets_differ_in_size_not_in_kind_and_names_are_unique() -> None:
    large = cases(EvaluateConfig.preset("gpu"))
    small = {case.name for case in cases(EvaluateConfig.preset("cpu"))}
    names = {case.name for case in large}
    assert small < names and len(names) == 29 and len(small) >= 20
    assert {case.dataset for case in large if case.transfer} == {"digits", "python-stdlib"}


def test_script_explains_itself() -> None:
    script = [sys.executable, str(ROOT / "scripts/evaluate_init.py"), "--help"]
    assert "held-out" in subprocess.run(script, capture_output=True, text=True, check=True).stdout
    with pytest.raises(SystemExit) as stopped:
        main(["/tmp/never-made", "--preset", "nothing"])
    assert stopped.value.code == 2


def test_settings_reach_every_field_and_options_win(options: dict) -> None:
    settings = '{"image_size": 32, "steps": 90, "transfer_steps": 10, "optimizer": "sgd"}'
    evaluate_command(**options, arms=["random"], settings=settings)
    config = json.loads((options["output"] / "results.json").read_text())["config"]
    assert (config["image_size"], config["steps"], config["transfer_steps"]) == (32, 10, 10)
    plans = [json.loads(path.read_text())["config"] for path in options["output"].rglob("random/config.json")]
    assert {plan["optimizer"] for plan in plans} == {"sgd"}
    for wrong, message in (
        ('{"image_sise": 32}', "Did you mean 'image_size'"),
        ('{"lr": [true]}', "expected tuple"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate_command(**{**options, "lr": None}, arms=["random"], settings=wrong)


def test_models_get_the_vocabulary_of_the_tokenizer(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(tmp_path)
    config = EvaluateConfig(images="", transfer_images="", tokenizer=str(tmp_path))
    (case, _) = cases(config, "opt-6x256")
    assert case.architecture.build(device="meta").config.vocab_size == 3
    assert comparison(config, case, "random", "x").tokenizer == str(tmp_path)
    assert config.to_dict()["tokenizer"] == tmp_path.name


@pytest.fixture(scope="module")
def reuse(load_script: Callable[[str], ModuleType]) -> Callable[..., None]:
    """The script's entry point."""
    script = load_script("reuse_results")
    return lambda *arguments: script.main([*map(str, arguments)])


def test_curves_of_a_finished_evaluation_become_runs_again(
    finished: dict, tmp_path: Path, reuse: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["--images", "digits", "--models", finished["models"]]
    capsys.readouterr()
    reuse(finished["output"], tmp_path / "again", *models)
    assert capsys.readouterr().out == "mobilenetv3-11x48, digits: 3 runs of orthogonal, 3 runs of random\n"
    before, after = (
        RunFolder(folder / "runs" / "mobilenetv3-11x48" / "main" / "random").finished()
        for folder in (finished["output"], tmp_path / "again")
    )
    assert before.keys() == after.keys()
    for key, run in before.items():
        assert [point.metric for point in run.curve] == pytest.approx([p.metric for p in after[key].curve])
    # What starts elsewhere today is no run of today's.
    curves = finished["output"] / "curves.csv"
    rows = list(csv.DictReader(curves.open()))
    for row in rows:
        row["loss"] = str(float(row["loss"]) * (1.1 if row["arm"] == "random" else 1))
    with curves.open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    reuse(finished["output"], tmp_path / "other", *models)
    told = capsys.readouterr().out
    assert "random not reused: its loss before training is" in told
    assert "3 runs of orthogonal" in told and "runs of random" not in told


def test_runs_of_an_equal_checkpoint_are_reused(
    finished: dict, tmp_path: Path, reuse: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Another checkpoint that predicts the same weights needs no other runs; one that predicts others does."""
    evaluate_command(**finished, arms=["random", "ghn"])
    torch.manual_seed(1)
    other = GHN(GHNConfig(encoder=EncoderConfig(hidden=16, layers=1, heads=2)))
    with torch.no_grad():  # an untrained decoder predicts nothing but the base
        for parameter in other.decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    other.save_pretrained(tmp_path / "other")
    models = ["--images", "digits", "--models", finished["models"]]
    arms = "3 runs of orthogonal, 3 runs of random"
    for now, said in (("net", f"{arms}, 3 runs of ghn\n"), ("other", f"{arms}\n")):
        checkpoints = ["--earlier", tmp_path / "net", "--checkpoint", tmp_path / now]
        capsys.readouterr()
        reuse(finished["output"], tmp_path / now / "again", *models, *checkpoints)
        assert capsys.readouterr().out.endswith(said)
