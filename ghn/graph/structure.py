"""Patterns in a graph that initialization depends on: residual branches."""

from collections import defaultdict
from dataclasses import dataclass

from ghn.graph.graph import ComputationGraph
from ghn.graph.ops import ELEMENTWISE, NORMS

ENDING_ROLES = ("layer_scale", "norm_weight", "linear", "conv", "conv_transpose", "expert", "matrix")
"""Roles of parameters that set the size of a residual branch, the last one to act first."""

GATES = frozenset({"sigmoid", "hardsigmoid", "softmax", "tanh"})


@dataclass(frozen=True)
class ResidualAdd:
    """One addition of a branch to what it branched from."""

    node: int
    """Index of the 'add' node."""
    branch_ends: tuple[str, ...]
    """Names of the parameters that set the branch's size: its layer scale, else its last norm's weight, else the
    weight of its last linear map or convolution; empty if the branch ends in none of them."""


def residual_adds(graph: ComputationGraph) -> list[ResidualAdd]:
    """Find the residual additions of a graph, in execution order.

    Of two activations that are added, the branch is the one more operations away from the inputs.
    """
    sources: dict[int, list[int]] = defaultdict(list)
    depth = [0] * len(graph.nodes)
    for edge in sorted(graph.edges, key=lambda edge: (edge.target, edge.slot)):
        sources[edge.target].append(edge.source)
        if graph.nodes[edge.source].kind != "parameter":
            depth[edge.target] = max(depth[edge.target], depth[edge.source] + 1)
    roles = {spec.node: spec for spec in graph.params}
    found = []
    for node in graph.nodes:
        activations = [source for source in sources[node.index] if graph.nodes[source].kind != "parameter"]
        if node.kind != "add" or len(activations) != 2 or depth[activations[0]] == depth[activations[1]]:
            continue
        current: int | None = max(activations, key=depth.__getitem__)
        ends: tuple[str, ...] = ()
        while current is not None and not ends:
            reads = [roles[source] for source in sources[current] if source in roles]
            ends = tuple(spec.name for spec in reads if spec.role in ENDING_ROLES)
            before = [source for source in sources[current] if graph.nodes[source].kind != "parameter"]
            # A gate scales the branch; what it gates is the branch.
            before = [source for source in before if graph.nodes[source].kind not in GATES] or before
            passes = graph.nodes[current].kind in ELEMENTWISE | NORMS | {"relu", "prelu"}
            current = before[0] if before and passes else None
        if ends:
            found.append(ResidualAdd(node.index, ends))
    return found
