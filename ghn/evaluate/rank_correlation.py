"""Kendall's τ between what is known of networks before training and their accuracy after it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

from ghn.evaluate.ranking import STARTS
from ghn.finetune.page import Table
from ghn.finetune.table import plain

RESAMPLES = 2000
"""Resamples of the bootstrap over networks."""

INTERVAL = (0.025, 0.975)
"""Quantiles of the resampled figures that are reported."""

KINDS = {
    "overall": "all pairs of networks",
    "within": "pairs of one family alone",
    "families": "all pairs, where a network is given the mean of its family: what the family alone tells",
}
"""Kinds of τ, and the pairs of networks that each compares."""


def predictors(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """What networks are ranked by, the best highest: by minus the loss under each start, and by their sizes."""
    losses = {name: -table[f"loss_{name}"].to_numpy() for name in STARTS}
    return losses | {name: table[name].to_numpy(dtype=float) for name in ("parameters", "depth")}


def kendall(
    first: np.ndarray,
    second: np.ndarray,
    families: np.ndarray | None = None,
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """Kendall's τ-b, for many resamples at once, also of pairs within families alone; scipy's does neither.

    Args:
        first: A figure of each network, shape ``(networks,)``.
        second: Another one.
        families: With them, only pairs of the same family count.
        counts: How often each network is in each resample, shape ``(resamples, networks)``; None is once in a single
            one. Copies of a network tie.

    Returns:
        From -1 to 1, shape ``(resamples,)``; NaN where all networks tie.
    """
    signs = [np.sign(figure[:, None] - figure) for figure in (first, second)]
    if families is not None:
        signs = [sign * (families[:, None] == families) for sign in signs]
    weights = np.ones((1, len(first))) if counts is None else counts

    def total(pairs: np.ndarray) -> np.ndarray:
        return ((weights @ pairs) * weights).sum(1)

    untied = total(signs[0] ** 2) * total(signs[1] ** 2)
    return np.divide(
        total(signs[0] * signs[1]), np.sqrt(untied), out=np.full(len(untied), np.nan), where=untied > 0
    )


def rank_correlations(table: pd.DataFrame) -> dict[str, Any]:
    """τ of each predictor with bootstrap intervals over networks.

    Args:
        table: A row for each network with its ``family``, ``accuracy`` after training, ``parameters``, ``depth``, and
            the loss before training under each of ``STARTS``.

    Returns:
        ``tau``: for each predictor and each of ``KINDS``, ``tau`` and its interval ``low``, ``high``; and
        ``above_parameters``: the same of the difference between the τ of ``ghn`` and that of parameter count, in the
        same resamples.
    """
    accuracy, families = table["accuracy"].to_numpy(), pd.factorize(table["family"])[0]
    count = len(table)
    resamples = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    counts = np.vstack([np.ones(count), resamples])  # the networks themselves come first
    taus = {}
    for name, figure in predictors(table).items():
        means = (np.bincount(families, figure) / np.bincount(families))[families]
        taus[name] = {
            "overall": kendall(figure, accuracy, counts=counts),
            "within": kendall(figure, accuracy, families, counts),
            "families": kendall(means, accuracy, counts=counts),
        }
    return {
        "tau": {
            name: {kind: _with_interval(values) for kind, values in kinds.items()}
            for name, kinds in taus.items()
        },
        "above_parameters": {
            kind: _with_interval(taus["ghn"][kind] - taus["parameters"][kind]) for kind in KINDS
        },
    }


def _with_interval(values: np.ndarray) -> dict[str, float | None]:
    """τ of the networks themselves, and the interval over their resamples that have one."""
    resamples = values[1:][~np.isnan(values[1:])]
    low, high = np.quantile(resamples, INTERVAL) if len(resamples) else (np.nan, np.nan)
    return {"tau": plain(values[0]), "low": plain(low), "high": plain(high)}


def tau_table(correlations: Mapping[str, Any], networks: int) -> Table:
    """Table of τ with its intervals: a row for each predictor, a column for each of ``KINDS``."""
    lines = {**correlations["tau"], "ghn − parameters": correlations["above_parameters"]}
    rows = [(name, *(_cell(kinds[kind]) for kind in KINDS)) for name, kinds in lines.items()]
    title = f"Kendall's τ with accuracy after training, {networks} networks; 95 % of bootstrap resamples in brackets."
    return Table(columns=("ranked by", *KINDS), rows=rows, title=title)


def _cell(figure: Mapping[str, float | None]) -> str:
    tau, low, high = (figure[name] for name in ("tau", "low", "high"))
    if tau is None or low is None or high is None:
        return "–"
    return f"{tau:+.2f} ({low:+.2f} to {high:+.2f})"


def scatter(table: pd.DataFrame) -> Figure:
    """Accuracy after training over the loss before it under ``ghn``, and over parameter count, by family."""
    figure = Figure(figsize=(10, 4.5), layout="constrained", dpi=90)
    left, right = figure.subplots(1, 2, sharey=True)
    colours = colormaps["tab20"]
    for number, (family, networks) in enumerate(table.groupby("family")):
        for plot, column in ((left, "loss_ghn"), (right, "parameters")):
            plot.scatter(
                networks[column], networks["accuracy"], color=colours(number % 20), label=family, s=22
            )
    left.set_xlabel("loss before training under ghn (nats)")
    left.set_ylabel("accuracy after training from the network's own start")
    right.set_xlabel("parameters")
    right.set_xscale("log")
    for plot in (left, right):
        plot.grid(alpha=0.3)
    right.legend(fontsize=8)
    return figure
