"""A graph in numbers."""

from collections import Counter
from dataclasses import dataclass

from ghn.graph.graph import ComputationGraph, ParamSpec


@dataclass(frozen=True)
class RoleCount:
    """Parameters of one role."""

    role: str
    tensors: int
    numel: int


def count_roles(graph: ComputationGraph) -> list[RoleCount]:
    """Parameters by role, those with the most elements first."""
    tensors = Counter(spec.role for spec in graph.params)
    numel: Counter[str] = Counter()
    for spec in graph.params:
        numel[spec.role] += spec.numel
    return [RoleCount(role, tensors[role], total) for role, total in numel.most_common()]


def unattached(graph: ComputationGraph) -> list[ParamSpec]:
    """Parameters that no executed operation uses."""
    return [spec for spec in graph.params if spec.node is None]


def depths(graph: ComputationGraph) -> list[int]:
    """Operations on the longest path that leads to each node from any input or parameter, by node index."""
    depth = [0] * len(graph.nodes)
    # Nodes are in topological order, so a node's sources are final when it comes up.
    for node in graph.nodes:
        depth[node.index] = max((depth[source] + 1 for source in graph.sources(node.index)), default=0)
    return depth
