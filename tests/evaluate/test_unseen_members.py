"""Unseen members of the target space are predicted, and a table says what each starts with."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def unseen_members(load_script: Callable[[str], ModuleType]) -> Callable[..., None]:
    """The script's entry point."""
    script = load_script("unseen_members")
    return lambda *arguments: script.main([*map(str, arguments), "--images", "digits"])


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
