"""Nodes of a graph that is being simplified."""

from collections import defaultdict
from dataclasses import dataclass, field

from ghn.tracing.recorder import RawNode


@dataclass
class Group:
    """A node of the simplified graph while it grows: the operation that names it and those merged into it."""

    node: RawNode
    kinds: list[str] = field(default_factory=list)
    inputs: list[tuple[int, int]] = field(default_factory=list)


Groups = dict[int, Group]
"""Groups by the number of the recorded operation that names each, in execution order."""


def readers_of(groups: Groups) -> dict[int, set[int]]:
    """Numbers of the groups that read each."""
    readers: dict[int, set[int]] = defaultdict(set)
    for index, group in groups.items():
        for source, _ in group.inputs:
            readers[source].add(index)
    return readers
