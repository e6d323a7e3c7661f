"""How the size of activations changes along a graph where nothing normalizes them."""

import math
from collections import defaultdict
from collections.abc import Iterable

from ghn.graph.graph import ComputationGraph
from ghn.graph.ops import ACTIVATIONS, MIXING_ROLES

SUMS = frozenset({"sum", "scatter"})
WEIGHTED = frozenset({"mul", "div", "elementwise", "softmax"})
KEEP_SIZE = ACTIVATIONS | {"add", "sub", "concat", "index", "shape", "copy", "dropout", "max_pool"}
"""Kinds through which activations keep their size, roughly."""


def chain_lengths(graph: ComputationGraph) -> list[int]:
    """For each node how many operations with a matrix or kernel are on the longest way through it, itself included."""
    sources: dict[int, list[int]] = defaultdict(list)
    maps = {spec.node for spec in graph.params if spec.role in MIXING_ROLES}
    mixes = [0] * len(graph.nodes)
    for edge in graph.edges:
        if edge.source in maps:
            mixes[edge.target] = 1
        else:
            sources[edge.target].append(edge.source)
    before, after = list(mixes), list(mixes)
    for node in graph.nodes:
        index = node.index
        before[index] += max((before[source] for source in sources[index]), default=0)
    for index in range(len(graph.nodes) - 1, -1, -1):
        for source in sources[index]:
            after[source] = max(after[source], mixes[source] + after[index])
    return [first + last - own for first, last, own in zip(before, after, mixes, strict=True)]


def summands(graph: ComputationGraph) -> dict[int, float]:
    """How many activations were added up for each one that an operation with a matrix or kernel reads, at most.

    As in sums over sets and over neighbours in a graph; not where they were weighted before or divided afterwards, as
    attention and means do.
    """
    maps = {spec.node for spec in graph.params if spec.role in MIXING_ROLES}
    sources: dict[int, list[int]] = defaultdict(list)
    mixing = set()
    for edge in graph.edges:
        if edge.source in maps:
            mixing.add(edge.target)
        elif graph.nodes[edge.source].kind != "parameter":
            sources[edge.target].append(edge.source)
    counts: list[float] = []
    found = {}
    for node in graph.nodes:
        largest = max(
            sources[node.index], key=lambda source: math.prod(graph.nodes[source].shape), default=None
        )
        count = max((counts[source] for source in sources[node.index]), default=1.0)
        if node.kind in SUMS and largest is not None and graph.nodes[largest].kind not in WEIGHTED:
            count *= max(1.0, math.prod(graph.nodes[largest].shape) / max(1, math.prod(node.shape)))
        elif node.index in mixing:
            found[node.index], count = count, 1.0
        elif node.kind not in KEEP_SIZE:
            count = 1.0
        counts.append(count)
    return found


def repeats(graph: ComputationGraph, operations: Iterable[int]) -> bool:
    """Whether one of the operations reads, however indirectly, what another one made: a loop that was unrolled."""
    own = set(operations)
    made = set(own)
    for edge in sorted(graph.edges, key=lambda edge: edge.target) if len(own) > 1 else ():
        if edge.source in made:
            if edge.target in own:
                return True
            made.add(edge.target)
    return False
