"""Commands that are killed at random moments, and what is left then.

A command is forked from this process, which has imported everything, so that the moments fall into its work.
"""

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ghn.cli import main
from ghn.errors import CheckpointError
from ghn.hypernetwork import GHN

IMPORTED = (
    "ghn.apply.export",
    "ghn.finetune.compare",
    "ghn.finetune.report",
    "ghn.metatrain.run",
    "ghn.models.timm_zoo",
    "ghn.models.hf_zoo",
    "matplotlib.backends.backend_agg",
    "sklearn.datasets",
    "timm.models",
    "transformers.models.gpt2.modeling_gpt2",
)
"""What the commands import when they need it."""

TRAINING = {
    "images": "digits",
    "image_size": 8,
    "image_batch": 8,
    "networks": 4,
    "full_every": 0,
    "validation_networks": 1,
    "updates": 8,
    "targets": 1,
    "rank": 2,
    "save_every": 1,
    "validate_every": 8,
}
FIGURES = ("seconds", "bytes", "started", "finished", "provenance")
"""Parts of results that differ from run to run."""


@dataclass(frozen=True)
class Command:
    """One that is killed, and how its results are compared."""

    name: str
    arguments: Callable[[Path], list[str]]
    """Arguments of the call, given the folder for its results."""
    again: tuple[str, ...]
    """Options of the call after a kill, if something is there to go on from."""
    results: Callable[[Path], Any]
    """Gives what has to be the same in the end, to the last bit."""
    complaint: Callable[[Path, Any], str]
    """Says what must not be there, given the folder after a kill and the results of a whole run; empty if nothing."""


CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
"""Events of Python's audit hooks by which files change; reading is left out."""


@dataclass(frozen=True)
class Moment:
    """When a command is killed: after some seconds, or before its n-th change of a file."""

    seconds: float | None = None
    change: int | None = None

    def __str__(self) -> str:
        return f"before change {self.change}" if self.seconds is None else f"after {self.seconds:.2f} s"


def run(arguments: Sequence[str], folder: Path, moment: Moment | None = None) -> tuple[int | None, int]:
    """Run a command of ``ghn`` in a process of its own.

    Args:
        arguments: Of the command.
        folder: Where files that change are counted.
        moment: When to kill it; None lets it end.

    Returns:
        The exit code, None if it was killed; and the number of changes of files, 0 if it was.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        _become(arguments, folder, moment.change if moment else None, write)
    os.close(write)
    if moment and moment.seconds is not None:
        time.sleep(moment.seconds)
        os.kill(process, signal.SIGKILL)
    with os.fdopen(read) as pipe:
        count = int(pipe.read() or 0)
    status = os.waitpid(process, 0)[1]
    return (None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)), count


def _become(arguments: Sequence[str], folder: Path, last: int | None, pipe: int) -> None:
    """Turn a forked process into the command."""
    code, count = 1, 0

    def changes(event: str, details: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in CHANGES or not str(details[0]).startswith(str(folder)):
            return
        if event == "open" and not details[2] & (os.O_WRONLY | os.O_RDWR):
            return
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        sys.addaudithook(changes)
        sys.argv = ["ghn", *arguments]
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        os.write(pipe, str(count).encode())
        os._exit(code)


def kill_often(command: Command, moments: int, changes: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Kill a command again and again, each time in a new folder, and let the same command finish.

    Args:
        command: The command.
        moments: How many times it is killed at a random time.
        changes: And how many times before a random change of a file.
        folder: For all of it.
        seed: Of the moments.

    Returns:
        A row for the results file; ``complaints`` holds what was wrong.
    """
    for module in IMPORTED:
        importlib.import_module(module)
    whole, draw = folder / "whole", random.Random(seed)
    whole.mkdir(parents=True)
    start = time.perf_counter()
    code, count = run(command.arguments(whole), whole)
    seconds = time.perf_counter() - start
    if code != 0:
        raise RuntimeError(f"{command.name} ended with {code}")
    expected = command.results(whole)
    plan = [Moment(seconds=draw.uniform(0, seconds)) for _ in range(moments)]
    plan += [
        Moment(change=change) for change in sorted(draw.sample(range(1, count + 1), min(changes, count)))
    ]
    complaints, kills, leftovers = [], 0, 0
    for number, moment in enumerate(plan):
        place = folder / str(number)
        place.mkdir()
        kills += run(command.arguments(place), place, moment)[0] is None
        leftovers += any(place.rglob("*"))
        if wrong := command.complaint(place, expected):
            complaints.append(f"{moment}: {wrong}")
        code, _ = run([*command.arguments(place), *command.again], place)
        if code != 0:
            complaints.append(f"{moment}: the same command ends with {code}")
        elif command.results(place) != expected:
            complaints.append(f"{moment}: the results differ")
        if parts := [path.name for path in place.rglob(".*")]:
            complaints.append(f"{moment}: {parts[0]} is left behind")
        shutil.rmtree(place)
    return {
        "command": command.name,
        "seconds": round(seconds, 2),
        "file_changes": count,
        "moments": moments,
        "changes": len(plan) - moments,
        "killed": kills,
        "with_files_left": leftovers,
        "complaints": complaints,
    }


def commands() -> list[Command]:
    """Training, comparing, and predicting a file and a folder."""
    train = ["--settings", json.dumps(TRAINING)]
    compare = (
        "--model timm:test_vit --dataset digits --image-size 32 --inits ghn --inits random --seeds 0 --lr 1e-3 "
        "--steps 2 --batch-size 8 --eval-samples 16 --device cpu"
    ).split()
    small = json.dumps({"n_layer": 2, "n_embd": 128, "n_head": 4})
    return [
        Command(
            "ghn train",
            lambda folder: ["train", str(folder / "run"), *train],
            (),
            _training_results,
            _training_complaint,
        ),
        Command(
            "ghn compare",
            lambda folder: ["compare", *compare, "--output-dir", str(folder / "run")],
            ("--resume",),
            _comparison_results,
            _comparison_complaint,
        ),
        Command(
            "ghn predict --out FILE",
            lambda folder: [
                "predict",
                "timm:test_vit",
                "--out",
                str(folder / "model.safetensors"),
                "--overwrite",
            ],
            (),
            lambda folder: {"model.safetensors": (folder / "model.safetensors").read_bytes()},
            _prediction_complaint,
        ),
        Command(
            "ghn predict --out DIR",
            lambda folder: [
                *(
                    "predict",
                    "hf:gpt2",
                    "--model-kwargs",
                    small,
                    "--out",
                    str(folder / "model"),
                    "--overwrite",
                ),
            ],
            (),
            lambda folder: {path.name: path.read_bytes() for path in (folder / "model").iterdir()},
            _prediction_complaint,
        ),
    ]


def _training_results(folder: Path) -> Any:
    log = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    files = [folder / "run" / "state.safetensors", *sorted((folder / "run" / "checkpoint").glob("*.*"))]
    return _without_figures(log), {path.name: path.read_bytes() for path in files}


def _training_complaint(folder: Path, expected: Any) -> str:
    state, checkpoint = folder / "run" / "state.safetensors", folder / "run" / "checkpoint"
    if state.exists() and not _opens(state):
        return "the state is half-written"
    try:
        net = GHN.from_pretrained(checkpoint) if checkpoint.is_dir() else None
    except CheckpointError:
        return ""
    if (
        net is not None
        and (checkpoint / "model.safetensors").read_bytes() != expected[1]["model.safetensors"]
    ):
        return "a checkpoint loads that is not the final one"
    return ""


def _comparison_results(folder: Path) -> Any:
    return _without_figures(json.loads((folder / "run" / "results.json").read_text()))


def _comparison_complaint(folder: Path, expected: Any) -> str:
    """Every file that has its name is whole."""
    for path in (folder / "run").rglob("*.json"):
        try:
            json.loads(path.read_text())
        except ValueError:
            return f"{path.name} is half-written"
    return ""


def _prediction_complaint(folder: Path, expected: Any) -> str:
    """Whatever loads has to be whole, under a hidden name too."""
    for path in folder.rglob("*"):
        tensors = path.is_file() and ".safetensors" in path.name
        if tensors and _opens(path) and path.read_bytes() != expected["model.safetensors"]:
            return f"{path.name} loads, and is not whole"
    return ""


def _opens(path: Path) -> bool:
    try:
        with safe_open(path, "pt"):
            return all(bool(torch.isfinite(value).all()) for value in load_file(path).values())
    except SafetensorError:
        return False


def _without_figures(values: Any) -> Any:
    if isinstance(values, dict):
        return {
            key: _without_figures(value)
            for key, value in values.items()
            if not any(figure in key for figure in FIGURES)
        }
    return [_without_figures(value) for value in values] if isinstance(values, list) else values
