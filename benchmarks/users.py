"""Small networks as people write them: is the predicted start at least as good as the model's own?

    python benchmarks/users.py
    python benchmarks/users.py --only vae-linear --only mlp-digits --arm own --arm ghn --arm ghn/bias
    python benchmarks/users.py --jobs 2

Each network of ``benchmarks/user_networks`` is trained on its task from its own start and from that of ``ghn.init_``
with the shipped checkpoint, by Adam with a cosine schedule, at three learning rates from three seeds. Data, order and
noise are the same for all arms. Losses are those of examples that are not trained on (of the four small tables: of all
rows), means of three evaluations around a tenth of the steps, and of the last three; each arm counts at its best rate.

Rows are appended to benchmarks/results/users.csv as they come, with a digest of the weights that a run started from:
a second call runs what is missing, and what starts otherwise than it did. The table is docs/users.md. The arm
``ghn/ROLE,ROLE…`` has the parameters of these roles as in the model's own start: if it ends lower than ``ghn``, that
role is what the prediction has wrong.
"""

import copy
import csv
import hashlib
import math
import statistics
import time
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from user_networks import SUITE, Network, Task

import ghn
from ghn.environment import commit
from ghn.errors import ConfigError, did_you_mean

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "users.csv"
TABLE = HERE.parent / "docs" / "users.md"

ARMS = ("own", "ghn")
SEEDS = (0, 1, 2)
NEAR = 0.02
"""Share of the steps between two of three evaluations."""
MOST_AT_95_PERCENT, MOST, MOST_MEDIAN = 1.03, 1.10, 0.85
"""The bar: ratio of ``ghn``'s loss to the own start's, each at its best rate."""


@dataclass(frozen=True)
class Run:
    """One training: a row of the results."""

    network: str
    arm: str
    rate: float
    seed: int
    start: str
    """Digest of the weights that were trained."""
    tenth: float
    """Loss at a tenth of the steps; infinite if it diverged."""
    end: float
    seconds: float
    commit: str

    @property
    def key(self) -> tuple[str, str, float, int]:
        """What tells rows apart."""
        return self.network, self.arm, self.rate, self.seed


@cache
def task_of(network: str) -> Task:
    """The task of a network, with its data."""
    return SUITE[network].task()


@cache
def hypernetwork() -> ghn.GHN:
    """The shipped one."""
    return ghn.GHN.from_pretrained()


def started(task: Task, arm: str, seed: int) -> nn.Module:
    """Construct a network under a seed and give it the start of an arm."""
    torch.manual_seed(seed)
    model = task.build()
    if arm == "own":
        return model
    _, _, roles = arm.partition("/")
    for part, inputs in task.parts(model, *(tensor[: task.size] for tensor in task.train)):
        own = copy.deepcopy(part.state_dict())
        report = hypernetwork().init_(part, inputs=inputs, seed=seed)
        swapped = {entry.name for entry in report.parameters if entry.role in roles.split(",")}
        with torch.no_grad():
            for name, parameter in part.named_parameters():
                if name in swapped:
                    parameter.copy_(own[name])
    return model


def digest(model: nn.Module) -> str:
    """Twelve digits that tell two states of a model apart."""
    found = hashlib.sha256()
    for value in model.state_dict().values():
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()[:12]


def evaluated(model: nn.Module, task: Task) -> float:
    """Loss of what is not trained on, with the same noise each time."""
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loss = (task.measure or task.loss)(model, *task.test).item()
    model.train()
    return loss if math.isfinite(loss) else math.inf


def trained(model: nn.Module, task: Task, rate: float, seed: int) -> tuple[float, float]:
    """Train in place; losses around a tenth of the steps and at the end."""
    torch.manual_seed(seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.steps)
    near = max(1, round(NEAR * task.steps))
    early, late = ({at - near, at, at + near} for at in (round(0.1 * task.steps), task.steps - near))
    losses: dict[int, float] = {}
    order: Sequence[Tensor] = ()
    for step in range(1, task.steps + 1):
        if not order:
            order = list(torch.randperm(len(task.train[0])).split(task.size))
            order = order[:-1] if len(order) > 1 else order  # batches of one size
        chosen, order = order[0], order[1:]
        optimizer.zero_grad()
        task.loss(model, *(tensor[chosen] for tensor in task.train)).backward()
        optimizer.step()
        schedule.step()
        if step in early | late:
            losses[step] = evaluated(model, task)
    return tuple(statistics.fmean(losses[step] for step in steps) for steps in (early, late))  # type: ignore[return-value]


def run(network: str, arm: str, rate: float, seed: int, known: Run | None, commit: str) -> Run:
    """Train once, unless the known run started from the same weights."""
    torch.set_num_threads(1)
    begin, task = time.perf_counter(), task_of(network)
    model = started(task, arm, seed)
    start = digest(model)
    if known and known.start == start:
        return known
    tenth, end = trained(model, task, rate, seed)
    return Run(network, arm, rate, seed, start, tenth, end, round(time.perf_counter() - begin, 2), commit)


def read(path: Path) -> dict[tuple[str, str, float, int], Run]:
    """Earlier runs; the last row of each counts."""
    if not path.exists():
        return {}
    types = {field.name: field.type for field in fields(Run)}
    with path.open(newline="") as file:
        rows = [Run(**{k: types[k](v) for k, v in row.items()}) for row in csv.DictReader(file)]  # type: ignore[operator]
    return {row.key: row for row in rows}


def write(path: Path, runs: Iterable[Run], append: bool = False) -> None:
    """Write rows, numbers in five digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a" if append else "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Run)], lineterminator="\n")
        if not append:
            writer.writeheader()
        for row in runs:
            values = asdict(row)
            writer.writerow(values | {name: f"{values[name]:.5g}" for name in ("tenth", "end")})


@dataclass(frozen=True)
class Comparison:
    """A network's arm against its own start, means over seeds."""

    network: Network
    own: float
    own_rate: float
    loss: float
    rate: float
    tenth: float
    """Ratio of the losses at a tenth of the steps, each at the best rate of the end."""
    same: float
    """Ratio of the losses at the own start's best rate."""

    @property
    def ratio(self) -> float:
        """Of the losses at the end."""
        return self.loss / self.own


def compare(runs: Iterable[Run], arm: str) -> list[Comparison]:
    """Networks that have all runs of both arms, worst first."""
    grouped: dict[tuple[str, str], dict[float, list[Run]]] = {}
    for row in runs:
        grouped.setdefault((row.network, row.arm), {}).setdefault(row.rate, []).append(row)
    found = []
    for network in SUITE.values():
        own, other = (
            {
                rate: (statistics.fmean(r.end for r in rows), statistics.fmean(r.tenth for r in rows))
                for rate, rows in grouped.get((network.name, name), {}).items()
                if len(rows) == len(SEEDS) and rate in network.rates
            }
            for name in ("own", arm)
        )
        if len(own) < len(network.rates) or len(other) < len(network.rates):
            continue
        best, reached = min(own, key=own.__getitem__), min(other, key=other.__getitem__)
        found.append(
            Comparison(
                network=network,
                own=own[best][0],
                own_rate=best,
                loss=other[reached][0],
                rate=reached,
                tenth=other[reached][1] / own[best][1],
                same=other[best][0] / own[best][0],
            )
        )
    return sorted(found, key=lambda entry: -entry.ratio)


def summary(found: Sequence[Comparison]) -> str:
    """The bar, in a line."""
    ratios = [entry.ratio for entry in found]
    share = statistics.fmean(ratio <= MOST_AT_95_PERCENT for ratio in ratios)
    return (
        f"{len(found)} networks: at most {MOST_AT_95_PERCENT} times the own start's loss on {share:.0%} (bar 95%), "
        f"at most {max(ratios):.2f} times on all (bar {MOST}), median {statistics.median(ratios):.2f} "
        f"(bar {MOST_MEDIAN})"
    )


def table(found: Sequence[Comparison]) -> str:
    """The page of the docs."""
    lines = [
        "# Users' networks: the predicted start against the model's own",
        "",
        "Made by `python benchmarks/users.py` from `benchmarks/results/users.csv`; what is measured is said there.",
        "Loss of examples that are not trained on (of the four small tables: of all rows), mean of three seeds, each",
        "start at its own best learning rate of three, in brackets; ratios below 1 are gains.",
        "",
        f"{summary(found)}.",
        "",
        "| network | task | own start | `ghn` | ratio | at a tenth of the steps | at the own start's rate |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {entry.network.name} | {entry.network.description} | {entry.own:.4g} ({entry.own_rate:g}) "
        f"| {entry.loss:.4g} ({entry.rate:g}) | {entry.ratio:.2f} | {entry.tenth:.2f} | {entry.same:.2f} |"
        for entry in found
    ]
    return "\n".join(lines) + "\n"


def main(
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Networks.  [default: all]")] = None,
    arm: Annotated[list[str] | None, typer.Option(metavar="ARM", help="own, ghn or ghn/ROLE,…")] = None,
    jobs: Annotated[int, typer.Option(help="Processes, of one thread each.")] = 1,
    results: Annotated[Path, typer.Option(help="CSV file to continue.")] = RESULTS,
    output: Annotated[Path, typer.Option(help="Page of the table.")] = TABLE,
) -> None:
    """Run what is missing, then write the table."""
    for name in only or ():
        if name not in SUITE:
            raise ConfigError(f"no network {name!r} in the suite.{did_you_mean(name, SUITE)}")
    warnings.filterwarnings("ignore")
    known, arms = read(results), arm or ARMS
    wanted = [
        (name, one, rate, seed)
        for name in only or SUITE
        for one in arms
        for rate in SUITE[name].rates
        for seed in SEEDS
    ]
    write(results, known.values())
    version = commit() or ""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        columns = zip(*((*key, known.get(key), version) for key in wanted), strict=True)
        for row in pool.map(run, *columns):
            if known.get(row.key) != row:
                write(results, [row], append=True)
                known[row.key] = row
            if row.key[1:] == (arms[-1], SUITE[row.network].rates[-1], SEEDS[-1]):
                report(row.network, known.values(), arms)
    write(results, sorted(known.values(), key=lambda row: (list(SUITE).index(row.network), row.key)))
    found = compare(known.values(), "ghn")
    if found:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(table(found))
        typer.echo(summary(found))


def report(network: str, runs: Iterable[Run], arms: Iterable[str]) -> None:
    """Print a network's comparisons."""
    mine = [row for row in runs if row.network == network]
    for arm in arms:
        for entry in compare(mine, arm):
            typer.echo(
                f"{network:28} {arm:18} {entry.own:8.4g} ({entry.own_rate:g}) -> {entry.loss:8.4g} ({entry.rate:g})  "
                f"end {entry.ratio:.3f}  tenth {entry.tenth:.3f}  same rate {entry.same:.3f}  "
                f"{sum(row.seconds for row in mine) / len(mine):.2f} s"
            )


if __name__ == "__main__":
    typer.run(main)
