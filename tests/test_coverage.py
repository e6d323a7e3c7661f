"""The sweep over a zoo: rows, resuming, and what its summary counts."""

import csv
import runpy
from pathlib import Path

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "coverage.py"))
OPTIONS = {
    "auto": [],
    "limit": 0,
    "sample": 0,
    "timeout": 60,
    "resume": True,
    "redo": False,
}


def sweep(path, pattern, **options):
    SCRIPT["main"]("torchvision", pattern=pattern, output=path, **{**OPTIONS, **options})
    with path.open(newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def test_a_sweep_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "coverage.csv"
    (row,) = sweep(path, "*:squeezenet1_1").values()
    assert row["tensors"] == row["attached"] == "52" and row["error"] == ""
    path.write_text(path.read_text().replace(",52,52,", ",52,51,"))
    rows = sweep(path, "*:squeezenet1_?")
    assert len(rows) == 2
    assert rows["torchvision:squeezenet1_1"]["attached"] == "51"  # not traced again
    assert sweep(path, "*:squeezenet1_?", redo=True)["torchvision:squeezenet1_1"]["attached"] == "52"


def test_repaired_configurations_are_counted_apart(capsys):
    row = SCRIPT["Row"]
    SCRIPT["_summarize"](
        [
            row("hf:a:A", auto="CAUSAL_LM", tensors=2, attached=2),
            row("hf:b:B", auto="CAUSAL_LM", tensors=2, attached=1, note="missing: x"),
            row("hf:c:C", auto="CAUSAL_LM", tensors=2, attached=2, repaired=True),
            row("hf:d:D", auto="CAUSAL_LM", constructible=False, error="no"),
        ]
    )
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if "CAUSAL_LM" in line)
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells == [
        "CAUSAL_LM",
        "4",
        "|",
        "2",
        "1",
        "50.0%",
        "|",
        "1",
        "1",
        "|",
        "6",
        "83.33%",
        "0.00%",
        "0",
    ]
    assert "hf:b:B: missing: x" in printed


def test_an_unknown_zoo_is_refused(tmp_path):
    with pytest.raises(Exception, match="Unknown zoo 'tim'"):
        SCRIPT["main"]("tim", pattern="*", output=tmp_path / "x.csv", **OPTIONS)
