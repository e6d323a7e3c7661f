"""Unseen members of the target space are predicted, and a table says what each starts with."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unseen_members() -> Callable[..., None]:
    """The script's entry point."""
    spec = importlib.util.spec_from_file_location("unseen_members", ROOT / "scripts" / "unseen_members.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main([*map(str, arguments), "--images", "digits"])


def test_each_family_has_its_members(
    unseen_members: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unseen_members(tmp_path / "unseen.csv", "--members", 2, "--family", "lenet", "vit")
    table = pd.read_csv(tmp_path / "unseen.csv")
    assert list(table["family"]) == ["lenet", "lenet", "vit", "vit"]
    assert table["kwargs"].nunique() == 4
    assert (table["loss_ghn"] != table["loss_base"]).all()
    printed = capsys.readouterr().out.splitlines()
    mean = 100 * table.groupby("family")["accuracy_base"].mean()["lenet"]
    (line,) = [line for line in printed if line.startswith("lenet")]
    assert float(line.split()[2]) == pytest.approx(mean, abs=0.06)


def test_an_unknown_family_is_named(
    unseen_members: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        unseen_members(tmp_path / "unseen.csv", "--family", "lenett")
    assert stopped.value.code == 2
    assert "no family 'lenett'. Did you mean 'lenet'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
