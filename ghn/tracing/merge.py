"""One record out of several runs of a model that took different branches."""

from dataclasses import replace
from difflib import SequenceMatcher

from ghn.tracing.recorder import RawNode


def merge_records(first: list[RawNode], second: list[RawNode]) -> list[RawNode]:
    """Merge the operations of two runs: what both executed appears once, where they differ both sides are kept.

    The records are aligned like two versions of a text, an operation being a line, so the order of both survives and
    the result has no cycle. An operation that both executed on different values reads all of them.

    Args:
        first: Nodes of one run, in execution order.
        second: Nodes of another run over the same registry of parameters.

    Returns:
        New nodes, in an order that agrees with both.
    """
    record: list[RawNode] = []
    parameters: dict[int, int] = {}
    places: tuple[dict[int, int], dict[int, int]] = ({}, {})
    records = (first, second)
    # Parameters are no steps of a run: they enter just before their first reader.
    steps = [[number for number, node in enumerate(nodes) if node.parameter is None] for nodes in records]

    def find(which: int, number: int) -> int:
        node = records[which][number]
        if node.parameter is None:
            return places[which][number]
        if node.parameter not in parameters:
            parameters[node.parameter] = len(record)
            record.append(replace(node))
        return parameters[node.parameter]

    def place(*versions: tuple[int, int]) -> None:
        inputs: list[tuple[int, int]] = []
        outputs: list[int] = []
        for which, number in versions:
            node = records[which][number]
            reads = [(find(which, source), slot) for source, slot in node.inputs]
            new = [position for position, read in enumerate(reads) if not inputs or read not in inputs]
            inputs += [reads[position] for position in new]
            outputs += [node.outputs[position] for position in new]
        for which, number in versions:
            places[which][number] = len(record)
        which, number = versions[0]
        record.append(replace(records[which][number], inputs=inputs, outputs=outputs))

    before, after = (
        [_key(nodes[number]) for number in order] for nodes, order in zip(records, steps, strict=True)
    )
    for tag, start, stop, other, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        left = [(0, number) for number in steps[0][start:stop]]
        right = [(1, number) for number in steps[1][other:end]]
        for versions in (
            zip(left, right, strict=True) if tag == "equal" else ((step,) for step in left + right)
        ):
            place(*versions)
    return record


def _key(node: RawNode) -> tuple[object, ...]:
    """What makes an operation of one run the same step of the model as one of another run."""
    return (node.kind, node.operation, node.module, len(node.shape))
