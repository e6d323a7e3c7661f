"""Time to trace: against the zoo's own construction and torch.export, by the number of nodes, and over all of timm.

    python benchmarks/trace.py                # the first two, about two minutes
    python benchmarks/trace.py --every 1      # all timm models in this process as well; 10 is every tenth

Times are CPU seconds of one core (medians over repeats), ratios are taken within one run. Writes
benchmarks/results/trace.json.
"""

import gc
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from ghn.environment import machine, versions
from ghn.models import example_inputs, list_models, load_model
from ghn.tracing import forms
from ghn.tracing.trace import trace

RESULTS = Path(__file__).parent / "results" / "trace.json"

MODELS = (
    "timm:resnet50",
    "timm:vit_base_patch16_224",
    "timm:convnext_base",
    "timm:efficientnet_b0",
    "timm:swin_tiny_patch4_window7_224",
)

REFERENCE_SECONDS_PER_MODEL = 676 / 1371
"""Construction and trace of one timm model by the prototype this tracer came from (DESIGN.md, section 3)."""

BLOCK_COUNTS = (9, 30, 100, 300, 1000, 1636)
"""100 to 18,000 nodes, the most of any transformers model."""


class Residual(nn.Module):
    """A residual block; with its parameters 11 nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.grow, self.shrink = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shrink(torch.nn.functional.gelu(self.grow(self.norm(x))))


def main(
    every: Annotated[int, typer.Option(help="Trace each n-th model of timm; 0 for none.")] = 0,
    repeats: Annotated[int, typer.Option(help="Medians over so many.")] = 5,
) -> None:
    """Measure and write the results."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    _compare(MODELS[0], 1)  # imports
    results: dict[str, Any] = {"schema": 1, "unit": "CPU seconds"}
    results["models"] = {spec: _compare(spec, repeats) for spec in MODELS}
    results["nodes"] = _by_nodes(repeats)
    if every:
        results["timm"] = _sweep(every)
    results["provenance"] = {"versions": versions(), **machine()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(f"wrote {RESULTS}")


def _compare(spec: str, repeats: int) -> dict[str, float]:
    """Trace a model as new (nothing remembered from earlier ones), and what users compare that with."""
    model = load_model(spec)
    args, kwargs = example_inputs(model)

    def fresh() -> None:
        forms.forget()
        trace(model)

    row = {
        "construct": _median(lambda: load_model(spec), repeats),
        "construct_on_meta": _median(lambda: load_model(spec, device="meta"), repeats),
        "trace": _median(fresh, repeats),
        "export": _median(lambda: torch.export.export(model.eval(), args, kwargs), max(1, repeats // 2)),
        "nodes": float(len(trace(model).nodes)),
    }
    row["trace_over_construct"] = row["trace"] / row["construct"]
    row["trace_over_export"] = row["trace"] / row["export"]
    print(spec, {name: round(value, 3) for name, value in row.items()}, flush=True)
    return row


def _by_nodes(repeats: int) -> dict[str, Any]:
    """Time against the number of nodes, and the exponent of the power law through it."""
    inputs, rows = torch.ones(2, 4, 16), []
    for blocks in BLOCK_COUNTS:
        model = nn.Sequential(*(Residual() for _ in range(blocks)))
        nodes = len(trace(model, inputs).nodes)
        rows.append((nodes, _median(lambda model=model: trace(model, inputs), repeats)))  # type: ignore[misc]
        print(f"{nodes} nodes: {rows[-1][1]:.3f} s", flush=True)
    slope, _ = statistics.linear_regression(*zip(*((math.log(n), math.log(s)) for n, s in rows), strict=True))
    print(f"time grows as nodes ** {slope:.2f}")
    return {"seconds_by_nodes": rows, "exponent": slope}


def _sweep(every: int) -> dict[str, float]:
    specs = list_models("timm")[::every]
    seconds, complete = [], 0
    for spec in specs:
        start = time.process_time()
        graph = trace(load_model(spec, device="meta"))
        seconds.append(time.process_time() - start)
        complete += graph.coverage() == 1.0
    mean = statistics.mean(seconds)
    row = {
        "models": len(specs),
        "complete": complete,
        "seconds": sum(seconds),
        "median": statistics.median(seconds),
        "speedup_over_reference": REFERENCE_SECONDS_PER_MODEL / mean,
    }
    print(
        f"{complete} of {len(specs)} timm models complete, {sum(seconds):.0f} s, {mean:.3f} s each",
        flush=True,
    )
    return row


def _median(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        gc.collect()
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


if __name__ == "__main__":
    typer.run(main)
