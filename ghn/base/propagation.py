"""How the size of activations changes along a graph where nothing normalizes them."""

import math
from collections.abc import Iterable

from ghn.graph.graph import ComputationGraph
from ghn.graph.ops import ACTIVATIONS, MIXING_ROLES, NORMS

SUMS = frozenset({"sum", "scatter"})
WEIGHTED = frozenset({"mul", "div", "elementwise", "softmax"})
KEEP_SIZE = ACTIVATIONS | {"add", "sub", "concat", "index", "shape", "copy", "dropout", "max_pool"}
"""Kinds through which activations keep their size, roughly."""


def chain_lengths(graph: ComputationGraph) -> list[int]:
    """For each node how many operations with a matrix or kernel are on the longest way through it, itself included.

    Ways begin and end at normalizations, behind which sizes are what they are.
    """
    mixing, norms = _mixing(graph), {node.index for node in graph.nodes if node.kind in NORMS}
    mixes = [int(index in mixing) for index in range(len(graph.nodes))]
    before, after = list(mixes), list(mixes)
    for index in range(len(graph.nodes)):
        sources = () if index in norms else graph.activations(index)
        before[index] += max((before[source] for source in sources), default=0)
    for index in range(len(graph.nodes) - 1, -1, -1):
        for source in () if index in norms else graph.activations(index):
            after[source] = max(after[source], mixes[source] + after[index])
    return [first + last - own for first, last, own in zip(before, after, mixes, strict=True)]


def summands(graph: ComputationGraph) -> dict[int, float]:
    """How many activations were added up for each one that an operation with a matrix or kernel reads, at most.

    As in sums over sets and over neighbours in a graph; not where they were weighted before or divided afterwards, as
    attention and means do.
    """
    mixing = _mixing(graph)
    counts: list[float] = []
    largest_counts = {}
    for node in graph.nodes:
        sources = graph.activations(node.index)
        sizes = {source: math.prod(graph.nodes[source].shape) for source in sources}
        largest = max(sizes.values(), default=0)
        weighted = any(
            size == largest and graph.nodes[source].kind in WEIGHTED for source, size in sizes.items()
        )
        count = max((counts[source] for source in sources), default=1.0)
        if node.kind in SUMS and sources and not weighted:
            count *= max(1.0, largest / max(1, math.prod(node.shape)))
        elif node.index in mixing:
            largest_counts[node.index], count = count, 1.0
        elif node.kind not in KEEP_SIZE:
            count = 1.0
        counts.append(count)
    return largest_counts


def _mixing(graph: ComputationGraph) -> set[int]:
    """Operations with a matrix or kernel."""
    maps = (spec.node for spec in graph.params if spec.role in MIXING_ROLES and spec.node is not None)
    return {reader for node in maps for reader in graph.readers(node)}


def repeats(graph: ComputationGraph, operations: Iterable[int]) -> bool:
    """Whether one of the operations reads, however indirectly, what another one made: a loop that was unrolled."""
    own = set(operations)
    if len(own) < 2:
        return False
    after = set(own)
    for node in range(min(own), len(graph.nodes)):
        if not after.isdisjoint(graph.sources(node)):
            if node in own:
                return True
            after.add(node)
    return False
