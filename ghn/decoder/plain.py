"""Networks without normalization, where the weights alone keep the size of activations.

Between two wrongs: with torch's default (a third of the variance that keeps the size of what a linear map reads) deep
networks fade, and with that of He et al. shallow ones start as large random functions, which training has to undo.
So a map keeps the size of its inputs but for an equal share of what the whole chain of maps may lose.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable

from ghn.graph.graph import ComputationGraph
from ghn.graph.ops import ACTIVATIONS, MIXING_ROLES

KEPT = 0.2
"""Size of the outputs, relative to the inputs, that a chain of maps is left with. Losses after training are 1.6 times
lower than with the gains of He et al., in the geometric mean over 17 small networks (scripts/LOG.md)."""

LEAST_GAIN = 3**-0.5
"""Of torch's default map: short chains don't lose more."""

MOST_GAIN = 2**0.5
"""What keeps the size of large numbers through all rectifiers: with more, SiLU and GELU let a deep chain explode."""

ACTIVATION_GAINS = {
    "relu": 1.414,
    "relu6": 1.414,
    "leaky_relu": 1.414,
    "prelu": 1.372,
    "elu": 1.245,
    "selu": 1.0,
    "gelu": 1.533,
    "silu": 1.675,
    "mish": 1.483,
    "softplus": 1.042,
    "hardswish": 1.737,
    "tanh": 1.593,
    "hardtanh": 1.393,
}
"""One over the root mean square of the activation of standard normal numbers. Sigmoids are gates and ends."""

RECURRENT_GAIN = 1.0
"""Of a recurrent layer's map of its own state, which torch draws to lose two thirds of the variance at each step: what
is to be remembered fades less (scripts/LOG.md)."""

TABLE_SPREAD = 0.3
"""Of tables of vectors. Those of unit variance learn slowly: a recommender ends at a tenth of their loss, a table of
categories at a half (scripts/LOG.md)."""

SEQUENCE = frozenset({"recurrent", "conv", "pad"})
"""What reads tables whose vectors are of unit variance, as torch's are: so does attention (scripts/LOG.md)."""

SET_OUTPUT = 0.3
"""Of the maps that make the output where sets are summed, relative to torch's: what is summed is not independent, so
such networks start with outputs that are too large (scripts/LOG.md)."""

SUMS = frozenset({"sum", "scatter"})
WEIGHTED = frozenset({"mul", "div", "elementwise", "softmax"})
KEEP_SIZE = ACTIVATIONS | {"add", "sub", "concat", "index", "shape", "copy", "dropout", "max_pool"}
"""Kinds through which activations keep their size, roughly."""


def activation_gain(readers: Collection[str]) -> float | None:
    """Largest gain of the activations among the readers of a map; None if it isn't read as their input.

    What ends in a tanh may be an output or a gate as well, so it counts only if nothing else reads it.
    """
    found = {kind: ACTIVATION_GAINS[kind] for kind in readers if kind in ACTIVATION_GAINS}
    if not found or (found.keys() <= {"tanh", "hardtanh"} and len(found) < len(readers)):
        return None
    return max(found.values())


def chain_gain(activation: float, maps: int) -> float:
    """Gain of one of so many maps in a row, before an activation of that gain."""
    return min(MOST_GAIN, max(LEAST_GAIN, activation * KEPT ** (1 / maps)))


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
