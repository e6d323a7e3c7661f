"""Small networks as people write them: is the predicted start at least as good as the model's own?

    python benchmarks/users.py
    python benchmarks/users.py --only vae-linear --only mlp-digits --arm own --arm ghn --arm ghn/bias
    python benchmarks/users.py --jobs 2

Each network of ``benchmarks/user_networks`` is trained on its task from its own start and from that of ``ghn.init_``
with the shipped checkpoint, by Adam with a cosine schedule, at three learning rates. Data, order and noise are the same
for all arms. Losses are those of examples that are not trained on (of the four small tables: of all rows), means of
three evaluations around a tenth of the steps, and of the last three; each arm counts at its best rate.

How many seeds a network has depends on how far they scatter, not on which arm ends lower: both arms begin with three,
and have twice as many (up to 48) as long as the standard error of the ratio of their losses is above 0.02 of it, and
all runs of the network together would take at most 60 seconds of CPU time.

Seeds are trained together, their weights stacked (``user_networks/training.py``). Rows are appended to
benchmarks/results/users.csv as they come, with a digest of the weights that a run started from: a second call runs what
is missing, and what starts otherwise than it did. The table is docs/users.md. The arm ``ghn/ROLE,ROLE…`` has the
parameters of these roles as in the model's own start: if it ends lower than ``ghn``, that role is what the prediction
has wrong.
"""

import copy
import csv
import hashlib
import math
import statistics
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn
from user_networks import SUITE, Network, Task
from user_networks.training import train

import ghn
from ghn.environment import commit
from ghn.errors import ConfigError, did_you_mean

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "users.csv"
TABLE = HERE.parent / "docs" / "users.md"

ARMS = ("own", "ghn")
SEEDS = (3, 6, 12, 24, 48)
"""Numbers of seeds that a network may have."""
PRECISE = 0.02
"""Standard error of the ratio of both losses, relative to it, at which more seeds are not needed."""
MOST_SECONDS = 60.0
"""CPU time of all runs of a network and its two arms up to which it may have more seeds than the fewest."""
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


def build(task: Task, arm: str, seed: int) -> nn.Module:
    """Construct a network under a seed and give it the start of an arm."""
    torch.manual_seed(seed)
    model = task.build()
    if arm == "own":
        return model
    _, _, roles = arm.partition("/")
    for part, inputs in task.parts(model, *(tensor[: task.size] for tensor in task.train)):
        own = copy.deepcopy(part.state_dict())
        report = hypernetwork().init_(part, inputs=inputs, seed=seed)
        names = {entry.name for entry in report.parameters if entry.role in roles.split(",")}
        with torch.no_grad():
            for name, parameter in part.named_parameters():
                if name in names:
                    parameter.copy_(own[name])
    return model


def digest(model: nn.Module) -> str:
    """Twelve digits that tell two states of a model apart."""
    state = hashlib.sha256()
    for value in model.state_dict().values():
        state.update(value.contiguous().numpy().tobytes())
    return state.hexdigest()[:12]


def run(network: str, arm: str, seeds: range, earlier: Sequence[Run], commit: str) -> list[Run]:
    """Train some seeds at all rates, unless the known runs of them started from the same weights."""
    torch.set_num_threads(1)
    task, rates = task_of(network), SUITE[network].rates
    models = [build(task, arm, seed) for seed in seeds]
    starts = dict(zip(seeds, map(digest, models), strict=True))
    if len(earlier) == len(seeds) * len(rates) and all(starts[row.seed] == row.start for row in earlier):
        return list(earlier)
    rows = []
    for rate in rates:
        start = time.process_time()
        losses = train([copy.deepcopy(model) for model in models], task, rate, seeds)
        seconds = round((time.process_time() - start) / len(seeds), 3)
        rows += [
            Run(network, arm, rate, seed, starts[seed], *ends, seconds, commit)
            for seed, ends in zip(seeds, losses, strict=True)
        ]
    return rows


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
    seeds: int
    own: float
    own_rate: float
    loss: float
    rate: float
    error: float
    """Standard error of the ratio of the losses, relative to it."""
    tenth: float
    """Ratio of the losses at a tenth of the steps, each at the best rate of the end."""
    same: float
    """Ratio of the losses at the own start's best rate."""

    @property
    def ratio(self) -> float:
        """Ratio of the losses at the end."""
        return self.loss / self.own


Table = Mapping[tuple[str, str, float, int], Run]


def compare(runs: Table, network: Network, arm: str, seeds: int) -> Comparison | None:
    """A network's arm against its own start over the first seeds; None if a run of them is missing."""
    groups = {
        (name, rate): [runs.get((network.name, name, rate, seed)) for seed in range(seeds)]
        for name in ("own", arm)
        for rate in network.rates
    }
    complete = {key: [row for row in rows if row] for key, rows in groups.items()}
    if any(len(rows) < seeds for rows in complete.values()):
        return None
    ends = {key: statistics.fmean(row.end for row in rows) for key, rows in complete.items()}
    best, other_best = (min(network.rates, key=lambda rate: ends[name, rate]) for name in ("own", arm))
    own, other = complete["own", best], complete[arm, other_best]
    differences = [
        a.end / ends[arm, other_best] - b.end / ends["own", best] for a, b in zip(other, own, strict=True)
    ]
    return Comparison(
        network=network,
        seeds=seeds,
        own=ends["own", best],
        own_rate=best,
        loss=ends[arm, other_best],
        rate=other_best,
        error=statistics.stdev(differences) / math.sqrt(seeds),
        tenth=statistics.fmean(row.tenth for row in other) / statistics.fmean(row.tenth for row in own),
        same=ends[arm, best] / ends["own", best],
    )


def seeds_for(runs: Table, network: Network) -> int:
    """How many seeds a network should have next, by how far those it has scatter and what more of them take."""
    count = SEEDS[0]
    for more in SEEDS[1:]:
        comparison = compare(runs, network, "ghn", count)
        if not comparison or comparison.error <= PRECISE or more * _seconds(runs, network) > MOST_SECONDS:
            break
        count = more
    return count


def _seconds(runs: Table, network: Network) -> float:
    """CPU time of a seed: of both arms at all rates."""
    first = [
        row
        for row in runs.values()
        if row.network == network.name and row.arm in ARMS and row.seed < SEEDS[0]
    ]
    return len(ARMS) * len(network.rates) * statistics.fmean(row.seconds for row in first)


def comparisons(runs: Table, arm: str) -> list[Comparison]:
    """Networks that have runs of an arm and of their own start, with all seeds that both have, worst first."""
    entries = []
    for network in SUITE.values():
        complete = (
            compare(runs, network, arm, seeds) for seeds in SEEDS if seeds <= seeds_for(runs, network)
        )
        entries += [entry for entry in complete if entry][-1:]
    return sorted(entries, key=lambda entry: -entry.ratio)


def summary(entries: Sequence[Comparison]) -> str:
    """The bar, in a line."""
    ratios = [entry.ratio for entry in entries]
    share = statistics.fmean(ratio <= MOST_AT_95_PERCENT for ratio in ratios)
    sure = sum(entry.ratio * (1 - 2 * entry.error) > MOST_AT_95_PERCENT for entry in entries)
    return (
        f"{len(entries)} networks: at most {MOST_AT_95_PERCENT} times the own start's loss on {share:.1%} (bar 95%; "
        f"{sure} above by two standard errors), at most {max(ratios):.2f} times on all (bar {MOST}), "
        f"median {statistics.median(ratios):.2f} (bar {MOST_MEDIAN})"
    )


def table(entries: Sequence[Comparison]) -> str:
    """The page of the docs."""
    lines = [
        "# Users' networks: the predicted start against the model's own",
        "",
        "Made by `python benchmarks/users.py` from `benchmarks/results/users.csv`.",
        "Loss of examples that are not trained on (of the four small tables: of all rows), mean over seeds, each start",
        "at its own best learning rate of three, in brackets; ratios below 1 are gains, ± is their standard error.",
        "",
        "How many seeds a network has depends on how far they scatter, not on which start is better: both have",
        f"{SEEDS[0]}, and twice as many (up to {SEEDS[-1]}) as long as the standard error is above {PRECISE:.0%} of "
        "the ratio and all runs of",
        f"the network would take at most {MOST_SECONDS:g} seconds of CPU time.",
        "",
        f"{summary(entries)}.",
        "",
        "| network | task | own start | `ghn` | ratio | seeds | at a tenth of the steps | at the own start's rate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {entry.network.name} | {entry.network.description} | {entry.own:.4g} ({entry.own_rate:g}) "
        f"| {entry.loss:.4g} ({entry.rate:g}) | {entry.ratio:.2f} ± {entry.ratio * entry.error:.2f} | {entry.seeds} "
        f"| {entry.tenth:.2f} | {entry.same:.2f} |"
        for entry in entries
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
    runs, networks, arms = read(results), [SUITE[name] for name in only or SUITE], arm or list(ARMS)
    write(results, runs.values())
    version = commit() or ""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for fewer, more in pairwise((0, *SEEDS)):
            networks = [network for network in networks if seeds_for(runs, network) >= more]
            blocks = [(network.name, arm, range(fewer, more)) for network in networks for arm in arms]
            earlier = [earlier_runs(runs, *block) for block in blocks]
            columns = zip(*blocks, strict=True) if blocks else ((), (), ())
            for rows in pool.map(run, *columns, earlier, [version] * len(blocks)):
                changes = [row for row in rows if runs.get(row.key) != row]
                write(results, changes, append=True)
                runs |= {row.key: row for row in changes}
                if changes and rows[0].arm == arms[-1]:
                    report(runs, SUITE[rows[0].network], arms, more)
    write(results, sorted(runs.values(), key=lambda row: (list(SUITE).index(row.network), row.key)))
    entries = comparisons(runs, "ghn")
    if entries:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(table(entries))
        typer.echo(summary(entries))


def earlier_runs(runs: Table, network: str, arm: str, seeds: range) -> list[Run]:
    """Earlier runs of an arm at all rates, for some seeds."""
    keys = ((network, arm, rate, seed) for rate in SUITE[network].rates for seed in seeds)
    return [runs[key] for key in keys if key in runs]


def report(runs: Table, network: Network, arms: Iterable[str], seeds: int) -> None:
    """Print a network's comparisons."""
    for arm in arms:
        entry = compare(runs, network, arm, seeds)
        if entry and arm != "own":
            typer.echo(
                f"{network.name:28} {arm:12} {seeds:2} seeds  {entry.own:8.4g} ({entry.own_rate:g}) -> "
                f"{entry.loss:8.4g} ({entry.rate:g})  end {entry.ratio:.3f} ± {entry.error * entry.ratio:.3f}  "
                f"tenth {entry.tenth:.3f}  same rate {entry.same:.3f}  {_seconds(runs, network):.2f} s a seed"
            )


if __name__ == "__main__":
    typer.run(main)
