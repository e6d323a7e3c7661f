"""Parts of the ablation scripts that are more than a table of settings, and one short run of each."""

import csv
import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer
from torch import nn

from ghn.decoder import DecoderConfig, Order
from ghn.graph.trace import trace
from ghn.hypernetwork import GHN

FOLDER = Path(__file__).parents[2] / "scripts" / "ablations"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


def test_tiles_are_repeated_over_a_tensor_and_learn(script) -> None:
    decoder = script("rank").TileDecoder(12, DecoderConfig(rank=4, base="none"))
    graph = trace(nn.Sequential(nn.Linear(10, 7), nn.ReLU(), nn.Linear(7, 3)), torch.randn(2, 10))
    (decoded,) = decoder([Order(graph, torch.randn(4, 12))])
    weight = decoded["0.weight"]
    assert torch.allclose(weight[4:7], weight[:3])
    assert torch.allclose(weight[:, 4:8], weight[:, :4])
    weight.square().sum().backward()
    assert decoder.tile[0].weight.grad is not None


def test_compute_is_shared_out_in_passes(script) -> None:
    objectives = script("objectives")
    counts = {name: objectives.updates_for(config, 10_000) for name, config in objectives.VARIANTS.items()}
    assert counts["step0"] == 1000  # two targets, of one pass and a prediction each
    assert counts["step0"] > counts["trajectory, 8 to 32"] > counts["regression, 64 to 128"] > 2


def test_sizes_of_an_untrained_default_follow_the_rule_at_every_width(script) -> None:
    torch.manual_seed(0)
    mip = script("mip")
    default = mip.VARIANTS["default: circle, residual, normalized"].ghn
    net = GHN(default).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # away from the base, as training would
            parameter += 0.02 * torch.randn_like(parameter)
    mlp = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))
    inputs = torch.randn(2, 16)
    learned, base = (net.predict(mlp, inputs, learned=learned)["2.weight"] for learned in (True, False))
    assert not torch.allclose(learned, base, rtol=0.1)
    sizes = [size.relative_size for size in mip.sizes("default", 0, net)]
    assert len(sizes) == len(mip.WIDTHS) + len(mip.MAGNITUDES) - 1
    assert max(sizes) < 1.05 * min(sizes)


def test_sizes_of_raw_output_depend_on_the_magnitude_of_what_is_read(script) -> None:
    torch.manual_seed(0)
    mip = script("mip")
    net = GHN(mip.VARIANTS["plain sizes, bare output"].ghn).eval()
    small, whole = (mip.size("plain", 0, net, 64, magnitude).relative_size for magnitude in (1 / 64, 1.0))
    assert small != whole
    assert whole == pytest.approx(mip.size("plain", 0, net, 64).relative_size)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder", "rank", "mip", "hyperfan"])
def test_short_runs_leave_figures(script, name: str, tmp_path: Path) -> None:
    script(name).main(steps=2, seeds=1, output=tmp_path)
    with (tmp_path / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 3 and all(float(row["unseen"]) > 0 for row in rows)
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_objectives_are_judged_once_and_drawn(
    script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objectives = script("objectives")
    variants = {name: objectives.VARIANTS[name] for name in ("step0", "trajectory, SGD")}
    monkeypatch.setattr(objectives, "VARIANTS", variants)
    monkeypatch.setattr(objectives, "HELD_OUT", {"images": ("mobilenetv3-11x48",)})
    with pytest.raises(typer.BadParameter, match="no start trajectry; there are: random, base, step0"):
        objectives.main(passes=40, steps=10, only=["trajectry"], output=tmp_path)
    objectives.main(passes=40, steps=10, only=["random", "base"], output=tmp_path)
    assert [row.start for row in objectives._read(tmp_path)] == ["random", "base"]
    objectives.main(passes=40, steps=10, output=tmp_path)
    table = (tmp_path / "objectives.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert [row["start"] for row in rows] == ["random", "base", *variants]
    assert all(0 < float(row["final"]) < 1 and row["curve"].count(";") == 10 for row in rows)
    monkeypatch.setattr(objectives, "judge", None)  # nothing is left to do
    objectives.main(passes=40, steps=10, output=tmp_path)
    assert (tmp_path / "objectives.csv").read_text() == table
    monkeypatch.setattr(
        objectives, "judge", lambda *given, **known: [replace(old, **known) for old in judged]
    )
    judged = objectives._read(tmp_path)[:1]
    objectives.main(passes=20, steps=10, output=tmp_path)  # another table, beside the first
    kept = list(csv.DictReader((tmp_path / "objectives.csv").open()))
    assert kept[: len(rows)] == rows and [row["passes"] for row in kept[len(rows) :]] == ["20"] * 4
    assert (tmp_path / "objectives-images-10.png").read_bytes().startswith(b"\x89PNG")
