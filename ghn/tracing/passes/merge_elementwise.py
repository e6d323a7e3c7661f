"""Elementwise clutter: regions that compute one function, such as a GELU written out."""

from ghn.graph.ops import ACTIVATIONS, ELEMENTWISE
from ghn.tracing.passes.group import Groups, readers_of

SINKS = ELEMENTWISE | {"mean"}
"""Kinds of nodes that take their only source into themselves, if it is one of ``MERGED``."""

MERGED = (SINKS - ACTIVATIONS) | {"sigmoid", "tanh"}
"""Kinds of nodes that disappear into the only one that reads them, if it is one of ``SINKS``."""


def merge_elementwise(groups: Groups) -> None:
    """Merge an elementwise operation without parameters into the only, elementwise, operation that reads it."""
    readers = readers_of(groups)
    for index in sorted(groups):
        group = groups[index]
        only = next(iter(readers[index])) if len(readers[index]) == 1 else None
        if only is None or group.node.kind not in MERGED or groups[only].node.kind not in SINKS:
            continue
        takes_parameter = any(groups[source].node.kind == "parameter" for source, _ in group.inputs)
        activations = {source for source, _ in group.inputs}
        joins = (
            group.node.kind in ("add", "mul")
            and len(activations) > 1
            and not _same_origin(groups, activations)
        )
        if takes_parameter or joins or (group.node.kind == "mean" and group.node.shape[-1:] != (1,)):
            continue
        reader = groups[only]
        slot = min(slot for source, slot in reader.inputs if source == index)
        inputs = [entry for entry in reader.inputs if entry[0] != index] + [
            (source, slot) for source in activations
        ]
        reader.inputs = sorted(set(inputs), key=lambda entry: (entry[1], entry[0]))
        reader.kinds += group.kinds
        for source in activations:
            readers[source].discard(index)
            readers[source].add(only)
        del groups[index]


def _same_origin(groups: Groups, sources: set[int]) -> bool:
    """Whether one of the sources computes the others' values entry by entry (x and its square, say)."""
    first = min(sources)
    return all(
        source == first
        or (groups[source].node.kind in SINKS and {s for s, _ in groups[source].inputs} <= {first})
        for source in sources
    )
