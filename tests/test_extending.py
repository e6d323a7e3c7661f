"""The classes that the page on extending shows, as files of a newcomer's: each is used by the command that takes it.

Entries for transformers models are added in ``tests/models/test_families.py``.
"""

import json
import re
import sys
from pathlib import Path

import pytest

from ghn import cli

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def ghn(tmp_path, monkeypatch, capsys):
    """Runs a command in a folder where ``mine.py`` is the page's code that defines a class; returns its output."""

    def run(defines: str, *arguments: str) -> str:
        (code,) = (block for block in BLOCKS if f"class {defines}" in block)
        (tmp_path / "mine.py").write_text(code)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["ghn", *arguments])
        cli.main()
        return capsys.readouterr().out

    return run


def test_a_rule(ghn):
    options = ("--rules", "mine.py:SmallLogits", "--explain", "--out", "out.safetensors")
    out = ghn("SmallLogits", "predict", "timm:test_vit", *options)
    assert re.search(r"^ *head\.weight .*small_logits", out, re.MULTILINE)


@pytest.mark.parametrize(
    "options", [("--space", "mine.py:NarrowResNets"), ("--objective", "mine.py:TwoBatches")]
)
def test_a_space_and_an_objective(ghn, tmp_path, options):
    data = ("--images", "digits", "--image-size", "8", "--networks", "2", "--validation-networks", "1")
    sizes = ("--updates", "1", "--full-every", "0", "--rank", "2")
    ghn(options[1].partition(":")[2], "train", "run", *data, *sizes, *options)
    settings = json.loads((tmp_path / "run" / "metatrain.json").read_text())
    assert settings[options[0][2:]] == options[1]
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").exists()


def test_a_task(ghn, tmp_path):
    task = ("--task", "mine.py:Heights", "--model", "python:mine.py:network", "--output-dir", "out")
    budget = ("--inits", "base", "random", "--seeds", "0", "--lr", "1e-2", "--steps", "20", "--device", "cpu")
    out = ghn("Heights", "compare", *task, *budget)
    assert "on mine.py:Heights" in out and "squared error" in out and "bits per byte" not in out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["task"] == "heights"
    for run in results["runs"]:
        assert run["final"]["metric"] == -run["final"]["loss"] > run["curve"][0]["metric"]
