"""How much the library stands: networks that nobody wrote, damaged checkpoints, commands that are killed.

    python benchmarks/robustness.py                  # half an hour on one core
    python benchmarks/robustness.py --only networks  # one of: networks, checkpoints, kills

Writes benchmarks/results/robustness.json, of which a part that is not asked for stays. It ends with 1 if anything was
found: a network that breaks, or differs from what it was; a checkpoint that loads, or is refused otherwise than in one
line; a command that does not come to the same end after a kill.
"""

import contextlib
import io
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from robust import damage, kills, networks

from ghn.cli import app
from ghn.console import run_app
from ghn.environment import commit, machine, versions
from ghn.hypernetwork import GHN

RESULTS = Path(__file__).parent / "results" / "robustness.json"
PARTS = ("networks", "checkpoints", "kills")


def main(
    only: Annotated[str | None, typer.Option(help=", ".join(PARTS))] = None,
    count: Annotated[int, typer.Option(help="Networks.")] = 600,
    moments: Annotated[int, typer.Option(help="Kills of each command at random times.")] = 20,
    changes: Annotated[int, typer.Option(help="Kills of each command before random changes of files.")] = 20,
    command: Annotated[str, typer.Option(help="Kill only commands with this in their name.")] = "",
    results: Annotated[Path, typer.Option(help="File for the results.")] = RESULTS,
) -> None:
    """Run the parts and write the results."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    table: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {"schema": 1}
    for part in PARTS if only is None else (only,):
        content = {
            "networks": lambda: generated_networks(count),
            "checkpoints": damaged_checkpoints,
            "kills": lambda: killed_commands(moments, changes, command),
        }[part]()
        call = f"python benchmarks/robustness.py --only {part}"
        table[part] = {"made_by": call, **content, "commit": commit(), "versions": versions(), **machine()}
        results.write_text(json.dumps(table, indent=1) + "\n")
        print(f"{part}: {content['summary']}", flush=True)
    raise typer.Exit(int(any(table[part]["complaints"] for part in PARTS if part in table)))


def generated_networks(count: int) -> dict[str, Any]:
    """Trace and initialize networks, each by the shipped hypernetwork and by its base alone."""
    net, problems, operations = GHN.from_pretrained(), {}, Counter[str]()
    parameters = 0
    for seed in range(count):
        sample = networks.network(seed)
        operations.update(sample.operations)
        parameters += sum(1 for _ in sample.model.parameters())
        try:
            wrong = networks.complaints(seed, net)
        except Exception as error:  # whatever it is, it is a result
            wrong = [f"{type(error).__name__}: {error}"]
        if wrong:
            problems[seed] = {"operations": sample.operations, "wrong": wrong}
    summary = {"networks": count, "parameters": parameters, "broken": len(problems)}
    return {"summary": summary, "complaints": problems, "steps": dict(sorted(operations.items()))}


def damaged_checkpoints() -> dict[str, Any]:
    """Load every damaged checkpoint by the library and by the command, and every odd one that is sound."""
    problems, slowest, refusals, loads = [], 0.0, 0, 0
    before = _peak_bytes()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        good = {slots: root / f"good-{slots}" for slots in (False, True)}
        for slots, folder in good.items():
            damage.save_good(folder, slots)
        for number, case in enumerate(damage.sound_cases()):
            outcome = damage.attempt(*case, good, root / f"sound-{number}")
            loads += outcome.loaded
            if not outcome.loaded:
                problems.append(f"{case[0]} doesn't load: {outcome.message}")
        for number, case in enumerate(damage.bad_cases()):
            outcome = damage.attempt(*case, good, root / f"bad-{number}")
            slowest, refusals = max(slowest, outcome.seconds), refusals + outcome.refused
            if not outcome.refused:
                problems.append(f"{case[0]}: {outcome}")
            elif os.geteuid() == 0 and case[0].endswith("can't be read"):
                continue  # root reads it
            elif wrong := _by_command(case[2], good[case[1]], root / f"command-{number}"):
                problems.append(f"{case[0]} by the command: {wrong}")
        if marks := list(root.rglob(damage.MARK)):
            problems.append(f"code was run: {marks}")
    summary = {
        "damaged": number + 1,
        "refused": refusals,
        "sound": loads,
        "slowest_seconds": round(slowest, 2),
        "memory_bytes": _peak_bytes() - before,
    }
    return {"summary": summary, "complaints": problems}


def _by_command(make: damage.Make, good: Path, folder: Path) -> str:
    """What ``ghn predict`` does wrong with a damaged checkpoint; empty if it ends with 2 and one line."""
    shutil.copytree(good, folder / "net")
    checkpoint, out = make(folder / "net"), folder / "out.safetensors"
    arguments = ["predict", "timm:test_vit", "--checkpoint", str(checkpoint), "--out", str(out)]
    code, errors = 0, io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            run_app(app, arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except Exception as error:  # whatever it is, it is a result
        return f"{type(error).__name__}: {error}"
    text = errors.getvalue()
    if code != 2 or text.count("\n") != 1 or not text.startswith("error: "):
        return f"exit code {code}, {text[:300]!r}"
    return "a file was written" if out.exists() else ""


def killed_commands(moments: int, changes: int, name: str) -> dict[str, Any]:
    """Kill each command, at random times and before random changes of files."""
    start, rows = time.perf_counter(), []
    for command in (command for command in kills.commands() if name in command.name):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(kills.kill_often(command, moments, changes, Path(folder)))
        print(rows[-1], flush=True)
    kill_count = sum(row["killed"] for row in rows)
    summary = {"killed": kill_count, "seconds": round(time.perf_counter() - start)}
    complaints = [f"{row['command']} {wrong}" for row in rows for wrong in row["complaints"]]
    return {"summary": summary, "complaints": complaints, "commands": rows}


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    typer.run(main)
