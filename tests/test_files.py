"""Files are complete or not there, whoever writes them at the same time."""

import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from ghn.errors import OutputError
from ghn.files import replacing, sweep_beside, write_whole


def test_a_failure_leaves_the_file_of_before_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_whole(path, "before", "try again")
    with pytest.raises(RuntimeError, match="in the middle"), replacing(path, "try again") as part:
        part.write_text("ha")
        raise RuntimeError("in the middle")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"can't write '.*gone/file' \(No such file.*\); make room"):
        write_whole(tmp_path / "gone" / "file", b"", "make room")


def _write_often(path: Path, word: str) -> None:
    for _ in range(100):
        write_whole(path, json.dumps([word] * 1000), "try again")
        assert len(json.loads(path.read_text())) == 1000


def test_processes_do_not_disturb_each_other(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(_write_often, [tmp_path / "table.json"] * 2, ["one", "other"]))


def test_a_folder_takes_the_place_of_the_one_before_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for name in ("before", "after"):
        with replacing(path, "try again") as part:
            (part / "inner").mkdir(parents=True)
            (part / "inner" / name).write_text(name)
    assert [child.name for child in path.rglob("*") if child.is_file()] == ["after"]
    with pytest.raises(RuntimeError, match="in the middle"), replacing(path, "try again") as part:
        part.mkdir()
        raise RuntimeError("in the middle")
    assert [child.name for child in path.rglob("*") if child.is_file()] == ["after"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="other systems can't be asked for processes")
def test_what_killed_processes_left_is_removed_and_what_others_write_stays(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = tmp_path / "model[1]"
    left = [tmp_path / f".{path.name}.{gone.pid}.{kind}" for kind in ("part", "old")]
    left[0].mkdir()
    (left[0] / "half").touch()
    left[1].touch()
    stay = [
        tmp_path / name
        for name in (f".{path.name}.{os.getpid()}.part", f".model1.{gone.pid}.part", ".model[1].x")
    ]
    for file in stay:
        file.touch()
    sweep_beside(path)
    assert sorted(tmp_path.iterdir()) == sorted(stay)
