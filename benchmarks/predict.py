"""Time and memory of predictions, against what a user knows: the zoo's own random initialization, a plain write.

    python benchmarks/predict.py                    # ten minutes; GPT-2 large needs 5 GB of memory
    python benchmarks/predict.py --only first       # one of: first, large, growth, export
    python benchmarks/predict.py --only export      # a 7 B Llama in bf16 to a folder of 13.5 GB, deleted afterwards

Every measurement is a process of its own on one core, several are taken in turn, and ratios are those of medians of CPU
time. Writes benchmarks/results/predict.json, and of growth a plot beside it.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from ghn.environment import machine, versions

RESULTS = Path(__file__).parent / "results" / "predict.json"

LARGE = ("hf:gpt2:AutoModelForCausalLM", {"n_embd": 1280, "n_layer": 36, "n_head": 20})
MODELS = ("timm:resnet50", "timm:vit_base_patch16_224", "timm:convnext_base")
LLAMA: tuple[str, dict[str, Any]] = ("hf:llama:AutoModelForCausalLM", {})
"""Llama of transformers' default configuration: 6.7 B parameters."""

WIDTHS = (96, 128, 256, 512, 1024, 1536, 2048, 2688)
"""Widths of GPT-2-like models with 12 blocks, 1.5 M to 1 B parameters."""

JOB = """
import json, resource, sys, time, warnings
warnings.filterwarnings("ignore")
import torch
torch.set_num_threads(1)
from ghn.hypernetwork import GHN
from ghn.models import load_model

def peak_bytes():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def construct():
    return load_model(SPEC, **KWARGS)

def ours():
    model = load_model(SPEC, device="meta", **KWARGS)
    net.init_(model)
    return model

net = GHN.from_pretrained()
small = ("timm:test_vit", {}) if SPEC.startswith("timm") else ("hf:gpt2", {"n_embd": 64, "n_layer": 1, "n_head": 1})
net.init_(load_model(small[0], **small[1]))  # both ways import what they need when they first need it
before, row = peak_bytes(), {}

def timed(name, run):
    start = time.process_time()
    result = run()
    row[name] = time.process_time() - start
    return result
"""

TIMES = {
    "zoo": 'model = timed("seconds", construct)',
    "ghn": """
model = timed("seconds", ours)
row["parameters"] = sum(p.numel() for p in model.parameters())
row["extra_peak_bytes"] = peak_bytes() - before - sum(p.nbytes for p in model.parameters())
""",
    "again": """
one, other = construct(), construct()
timed("first", lambda: net.init_(one))
timed("second", lambda: net.init_(other))
""",
    "write": """
sizes = [p.shape for p in load_model(SPEC, device="meta", **KWARGS).parameters()]
tensors = timed("seconds", lambda: [torch.empty(size).fill_(1.0) for size in sizes])
""",
}


def main(
    only: Annotated[str | None, typer.Option(help="first, large, growth or export.")] = None,
    repeats: Annotated[int, typer.Option(help="Medians over so many.")] = 3,
) -> None:
    """Measure and write the results; those of parts that don't run now stay as they are."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"schema": 1}
    parts = {"first": _first, "large": _large, "growth": _growth, "export": _export}
    for name, part in parts.items():
        if only == name or (only is None and name != "export"):
            results[name] = part(repeats)
            print(name, json.dumps(results[name], indent=1), flush=True)
    results["provenance"] = {"versions": versions(), **machine()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(f"wrote {RESULTS}")


def _first(repeats: int) -> dict[str, Any]:
    """Construction on meta, trace and prediction of common models against the zoo's construction."""
    rows = {}
    for spec in MODELS:
        row = _compare(spec, {}, ("zoo", "ghn", "again"), repeats)
        row["ghn_over_zoo"] = row["ghn"]["seconds"] / row["zoo"]["seconds"]
        row["first_over_second"] = row["again"]["first"] / row["again"]["second"]
        rows[spec] = row
    return rows


def _large(repeats: int) -> dict[str, Any]:
    """GPT-2 large against its construction by transformers and against filling the same memory."""
    row = _compare(*LARGE, ("zoo", "ghn", "write"), repeats)
    row["ghn_over_zoo"] = row["ghn"]["seconds"] / row["zoo"]["seconds"]
    row["ghn_over_write"] = row["ghn"]["seconds"] / row["write"]["seconds"]
    return row


def _growth(repeats: int) -> dict[str, Any]:
    """Time against the number of parameters, and a straight line through it."""
    points = []
    for width in WIDTHS:
        kwargs = {"n_embd": width, "n_layer": 12, "n_head": width // 64, "vocab_size": 256}
        row = _compare("hf:gpt2:AutoModelForCausalLM", kwargs, ("ghn",), repeats)["ghn"]
        points.append((row["parameters"], row["seconds"]))
        print(points[-1], flush=True)
    slope, intercept = statistics.linear_regression(*zip(*points, strict=True))
    _plot(points, slope, intercept)
    large = [
        (math.log(parameters), math.log(seconds)) for parameters, seconds in points if parameters > 2**25
    ]
    exponent, _ = statistics.linear_regression(*zip(*large, strict=True))
    return {
        "seconds_by_parameters": points,
        "nanoseconds_per_parameter": 1e9 * slope,
        "seconds_at_zero": intercept,
        "exponent_from_30_m_on": exponent,
        "correlation": statistics.correlation(*zip(*points, strict=True)),
    }


def _plot(points: list[tuple[float, float]], slope: float, intercept: float) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    first, last = points[0][0], points[-1][0]
    along = [first * (last / first) ** (step / 99) for step in range(100)]
    label = f"{intercept:.2f} s + {1e9 * slope:.1f} ns per parameter"
    axes.loglog(along, [intercept + slope * parameters for parameters in along], label=label)
    axes.loglog(*zip(*points, strict=True), "o", label="GPT-2 of 12 blocks, meta to float32, one core")
    axes.set(xlabel="parameters", ylabel="CPU seconds: construct, trace, predict, write")
    axes.legend()
    figure.savefig(RESULTS.with_name("predict_growth.png"), dpi=100)


def _export(repeats: int) -> dict[str, Any]:
    """A 7 B model in bf16 from its configuration to a folder, through the command line."""
    spec, kwargs = LLAMA
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            spec,
            "--out",
            f"{folder}/model",
            "--dtype",
            "bfloat16",
            "--model-kwargs",
            json.dumps(kwargs),
        ]
        code = (
            "import json, resource, subprocess, sys, time\n"
            "start = time.perf_counter()\n"
            f"subprocess.run([sys.executable, '-m', 'ghn', 'predict', *{arguments!r}], check=True, "
            "stdout=subprocess.DEVNULL)\n"
            "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
            "print(json.dumps({'wall_seconds': time.perf_counter() - start, 'cpu_seconds': used.ru_utime + "
            "used.ru_stime, 'peak_bytes': 1024 * used.ru_maxrss}))"
        )
        row = _run(code)
        row["written_bytes"] = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return row


def _compare(spec: str, kwargs: dict[str, Any], names: tuple[str, ...], repeats: int) -> dict[str, Any]:
    """Medians of some measurements, taken in turn, each in a process of its own."""
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    head = f"SPEC, KWARGS = {spec!r}, {kwargs!r}\n{JOB}"
    for _ in range(repeats):
        for name in names:
            rows[name].append(_run(f"{head}{TIMES[name]}\nprint(json.dumps(row))"))
    return {
        name: {key: statistics.median(row[key] for row in group) for key in group[0]}
        for name, group in rows.items()
    }


def _run(code: str) -> dict[str, Any]:
    process = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    typer.run(main)
