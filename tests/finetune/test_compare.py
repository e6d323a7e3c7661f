"""Whole comparisons: what they leave, resuming, and the command line."""

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from ghn.errors import ConfigError, GhnError, OutputError
from ghn.finetune import compare as compare_module
from ghn.finetune.compare import compare
from ghn.finetune.options import main
from ghn.finetune.report import table

TIMES = ("init_seconds", "train_seconds", "peak_bytes")


def runs_of(folder) -> list[dict]:
    runs = json.loads((Path(folder) / "results.json").read_text())["runs"]
    return [{key: value for key, value in run.items() if key not in TIMES} for run in runs]


def test_results_have_the_schema_that_readers_rely_on(tiny):
    config = tiny(seeds=(0, 1), lr=(1e-3, 1e-2))
    compare(config)
    found = json.loads((Path(config.output_dir) / "results.json").read_text())
    expected = {
        "schema": 1,
        "task": "image-classification",
        "model": "timm:test_resnet",
        "model_kwargs": {},
        "dataset": "digits",
        "budget": {"steps": 3, "batch_size": 8},
    }
    assert {key: found[key] for key in expected} == expected
    assert found["parameters"] == 373658
    assert len(found["runs"]) == 8
    run = found["runs"][0]
    assert {"init", "seed", "lr", "init_seconds", "train_seconds", "peak_bytes", "curve", "final"} <= set(run)
    assert [set(point) for point in run["curve"]] == [{"step", "loss", "metric"}] * 4
    assert run["final"] == {key: run["curve"][-1][key] for key in ("loss", "metric")}
    assert list(found["summary"]) == ["random", "orthogonal"]
    for entry in found["summary"].values():
        assert list(entry) == ["lr", "metric_mean", "metric_sem", "loss_mean", "steps_to_random_final"]
    assert {"commit", "versions", "device", "started"} <= set(found["provenance"])
    assert found["provenance"]["device"] == "cpu"


def test_report_files(tiny):
    config = tiny()
    results = compare(config)
    folder = Path(config.output_dir)
    with (folder / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 4
    assert {row["init"] for row in rows} == {"random", "orthogonal"}
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "16 matrices made orthogonal" in (folder / "report.html").read_text()
    assert not list(folder.rglob("*.part"))
    assert [str(cell) for cell in table(results).columns[0].cells] == ["random", "orthogonal"]


def test_an_interrupted_comparison_goes_on_to_the_same_results(tiny, tmp_path, monkeypatch):
    whole = tiny(seeds=(0, 1))
    compare(whole)
    parts = tiny(seeds=(0, 1), output_dir=str(tmp_path / "parts"))
    real, done = compare_module.train_run, []

    def stops_at_the_third(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(compare_module, "train_run", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        compare(parts)
    monkeypatch.setattr(
        compare_module, "train_run", lambda *arguments: done.append(arguments) or real(*arguments)
    )
    compare(tiny(seeds=(0, 1), output_dir=parts.output_dir, resume=True))
    assert len(done) == 4
    assert runs_of(parts.output_dir) == runs_of(whole.output_dir)


def test_another_comparison_is_neither_overwritten_nor_mixed(tiny, tmp_path):
    compare(tiny())
    with pytest.raises(OutputError, match="holds a comparison already; pass --resume"):
        compare(tiny())
    with pytest.raises(ConfigError, match=r"--steps was 3, now it is 4 \(changed too: lr\)"):
        compare(tiny(steps=4, lr=(0.1,), resume=True))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not empty"):
        compare(tiny(output_dir=str(tmp_path / "mine")))


def test_a_checkpoint_that_was_trained_on_is_not_mixed_in(tiny, tiny_ghn, tmp_path):
    tiny_ghn.save_pretrained(tmp_path / "net")
    settings = {"inits": ("ghn",), "checkpoint": str(tmp_path / "net")}
    compare(tiny(**settings))
    with torch.no_grad():
        next(tiny_ghn.parameters()).add_(1)
    tiny_ghn.save_pretrained(tmp_path / "net")
    with pytest.raises(ConfigError, match="has been trained or replaced"):
        compare(tiny(**settings, resume=True))


def test_a_comparison_from_before_a_setting_was_added_is_continued(tiny):
    config = tiny()
    results = compare(config)
    file = Path(config.output_dir) / "config.json"
    stored = json.loads(file.read_text())
    assert stored["config"].pop("warmup") == config.warmup
    file.write_text(json.dumps(stored))
    assert compare(tiny(resume=True)).runs == results.runs


def test_a_folder_of_an_earlier_version_is_continued(tiny, monkeypatch):
    """As commit 71ef984 left it."""
    config = tiny(resume=True)
    shutil.copytree(Path(__file__).parent / "earlier", config.output_dir)
    monkeypatch.setattr(compare_module, "train_run", lambda *arguments: pytest.fail("trained"))
    results = compare(config)
    assert [run.init for run in results.runs] == ["random", "orthogonal"]
    assert results.summary()["random"]["metric_mean"] == 0.25
    assert results.provenance["started"] == "2026-11-30T12:56:59+00:00"


def test_a_folder_that_a_crash_left_before_its_first_run_is_continued(tiny):
    config = tiny()
    folder = Path(config.output_dir)
    folder.mkdir()
    (folder / ".config.json.123.part").write_text("{")
    (folder / ".write-test.part").touch()
    results = compare(config)
    assert len(results.runs) == 2
    assert not list(folder.rglob(".*"))


def test_damaged_run_is_named(tiny):
    config = tiny()
    compare(config)
    next(Path(config.output_dir, "runs").glob("*.json")).write_text("{")
    with pytest.raises(OutputError, match="is damaged"):
        compare(tiny(resume=True))


def test_a_diverged_run_does_not_end_the_comparison(tiny):
    config = tiny(optimizer="sgd", clip=0.0, lr=(1e30, 1e-3), steps=10, eval_every=10)
    results = compare(config)
    assert [bool(run.error) for run in results.runs] == [True, False, True, False]
    assert {entry["lr"] for entry in results.summary().values()} == {1e-3}
    assert "learning rate is too high" in (Path(config.output_dir) / "report.html").read_text()


def test_unwritable_folder_shows_before_training(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(compare_module, "train_run", lambda *arguments: pytest.fail("trained"))
    with pytest.raises(OutputError, match="can't write to the output folder"):
        compare(tiny(output_dir=str(tmp_path / "file" / "out")))


def test_missing_checkpoint_shows_before_training(tiny, monkeypatch):
    monkeypatch.setattr(compare_module, "train_run", lambda *arguments: pytest.fail("trained"))
    with pytest.raises(GhnError, match=r"no checkpoint at './nowhere'"):
        compare(tiny(inits=("ghn", "random"), checkpoint="./nowhere"))


@pytest.mark.parametrize(
    "arguments",
    [
        "--dataset digits --model timm:test_vit",
        "--dataset python-stdlib --model hf:gpt2 --sequence-length 32",
    ],
)
def test_command_line_end_to_end(tmp_path, capsys, arguments):
    kwargs = '{"patch_size": 8}' if "vit" in arguments else '{"n_layer": 1, "n_embd": 32, "n_head": 2}'
    out = tmp_path / "out"
    common = "--inits random orthogonal --seeds 0 1 --lr 1e-3 --steps 3 --batch-size 8 --eval-samples 16 --device cpu"
    main([*arguments.split(), "--model-kwargs", kwargs, *common.split(), "--output-dir", str(out)])
    printed = capsys.readouterr().out
    assert "orthogonal" in printed
    assert max(map(len, printed.splitlines())) <= 100
    assert {"results.json", "curves.csv", "curves.png", "report.html"} <= {
        path.name for path in out.iterdir()
    }


def test_arms_without_rules_are_compared_and_named(tiny_ghn, tmp_path, capsys):
    tiny_ghn.save_pretrained(tmp_path / "net")
    out = tmp_path / "out"
    arguments = (
        "--inits base random --without wide_classifier stem_bias --seeds 0 --lr 1e-3 --steps 2 --batch-size 8"
    )
    main(
        [
            *arguments.split(),
            *("--dataset", "digits", "--model", "timm:test_vit", "--eval-samples", "16", "--device", "cpu"),
            *("--checkpoint", str(tmp_path / "net"), "--output-dir", str(out)),
        ]
    )
    results = json.loads((out / "results.json").read_text())
    names = ["base", "random", "base-without-wide_classifier+stem_bias"]
    assert [run["init"] for run in results["runs"]] == names and [*results["summary"]] == names
    assert results["config"]["inits"] == names and results["config"]["rules"] == []
    assert names[-1] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--inits", "base", "--without", "stembias"], "Did you mean 'stem_bias'"),
        (["--inits", "random", "--without", "stem_bias"], "--without is for the arms ghn and base"),
        (["--rules", "./nowhere.py:Rule"], "There is no file './nowhere.py'"),
        (["--model-kwargs", "{depth: 6}"], "is not JSON"),
        (["--steps", "many"], "--steps"),
        (["--stepz", "3"], "--steps"),
        (["--inits", "randon"], "Did you mean 'random'"),
        (["--dataset", "./nowhere"], "the folder does not exist"),
        (["--model", "resnet18"], "names no zoo"),
        (["--seeds", "0", "x"], "--seeds"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message in error
    assert error.count("\n") == 1


def test_help_needs_no_torch():
    import subprocess

    script = Path(__file__).parents[2] / "scripts" / "init_and_finetune.py"
    code = (
        f"import runpy, sys; sys.argv = [{str(script)!r}, '--help']\n"
        f"try: runpy.run_path({str(script)!r}, run_name='__main__')\n"
        "finally: print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "--inits" in found.stdout
    assert found.stdout.rstrip().endswith("False"), found.stderr
