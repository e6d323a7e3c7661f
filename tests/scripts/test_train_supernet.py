"""The script trains slots from the command line and makes a checkpoint of them."""

import subprocess
import sys
from pathlib import Path

from ghn.hypernetwork import GHN

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_supernet.py"


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_trains_and_exports(tmp_path: Path) -> None:
    settings = (
        "--images digits --image-size 8 --networks 4 --updates 1 --validation-networks 1 --rank 2".split()
    )
    ended = call(tmp_path / "run", *settings)
    assert ended.returncode == 0, ended.stderr
    assert "1 updates, 0.00 M" in ended.stdout
    ended = call("--export", tmp_path / "checkpoint", tmp_path / "run" / "tables.safetensors")
    assert ended.returncode == 0, ended.stderr
    assert "vit" in GHN.from_pretrained(tmp_path / "checkpoint").decoder.bank.families
    again = call(tmp_path / "run", *settings, "--seed", "1")
    assert again.returncode == 2
    assert "other settings (seed)" in again.stderr and "Traceback" not in again.stderr
