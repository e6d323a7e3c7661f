"""Who feeds whom in a graph beyond additions of a bias and messages that are passed."""

from functools import cached_property

from ghn.graph.graph import ComputationGraph

MESSAGE_STEPS = 4
"""Operations from a node's features to the sum of its neighbours' messages, at most."""

BIASED = (["", "bias"], ["", "shift"])
"""Roles of what an addition of a bias adds; an activation has none."""


class Neighbours:
    """Results and readers of the operations of a graph."""

    def __init__(self, graph: ComputationGraph) -> None:
        self.graph = graph

    def results(self, operation: int) -> list[int]:
        """An operation, and the additions of a bias to what it makes."""
        readers = self.graph.readers(operation)
        bias_adds = [reader for reader in readers if reader in self._bias_adds] if len(readers) == 1 else []
        return [operation, *bias_adds]

    def final_readers(self, operation: int) -> set[int]:
        """Operations that read what one makes once its bias is added and its messages are summed."""
        final: set[int] = set()
        for reader in self.graph.readers(operation):
            gathered = self.graph.nodes[reader].kind in ("index", "gather")
            beyond = [reader] if reader in self._bias_adds else self._sums(reader) if gathered else []
            final |= {each for node in beyond for each in self.final_readers(node)} if beyond else {reader}
        return final

    @cached_property
    def _bias_adds(self) -> set[int]:
        specs = self.graph.params_by_node
        return {
            node.index
            for node in self.graph.nodes
            if node.kind == "add"
            and sorted(
                specs[source].role if source in specs else "" for source in self.graph.sources(node.index)
            )
            in BIASED
        }

    def _sums(self, index: int, steps: int = MESSAGE_STEPS) -> list[int]:
        """Sums of messages that a value is, or becomes when it is weighted."""
        kind = self.graph.nodes[index].kind
        if kind == "scatter":
            return [index]
        if not steps or kind not in ("index", "gather", "mul", "div"):
            return []
        return [each for reader in self.graph.readers(index) for each in self._sums(reader, steps - 1)]
