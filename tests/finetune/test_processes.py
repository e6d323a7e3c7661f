"""A comparison spread over several processes gives what one process gives."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ghn.finetune.compare import compare

ROOT = Path(__file__).parents[2]


def test_two_processes_train_like_one(tiny, tmp_path):
    config = tiny(model="timm:test_vit", inits=("random",), augment=False)  # BatchNorm would see half batches
    compare(config)
    options = {
        "--model": config.model,
        "--dataset": config.dataset,
        "--inits": "random",
        "--seeds": "0",
        "--lr": "1e-3",
        "--steps": str(config.steps),
        "--batch-size": str(config.batch_size),
        "--eval-samples": str(config.eval_samples),
        "--device": "cpu",
        "--output-dir": str(tmp_path / "two"),
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [str(ROOT / "scripts/init_and_finetune.py"), "--no-augment"]
    done = subprocess.run(
        [*launch, *script, *(word for option in options.items() for word in option)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = [
        json.loads((folder / "results.json").read_text())
        for folder in (Path(config.output_dir), tmp_path / "two")
    ]
    assert [result["provenance"]["processes"] for result in results] == [1, 2]
    alone, together = (result["runs"][0]["curve"] for result in results)
    assert [point["step"] for point in together] == [point["step"] for point in alone]
    assert [point["loss"] for point in together] == pytest.approx(
        [point["loss"] for point in alone], rel=1e-4
    )
