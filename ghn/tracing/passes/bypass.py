"""Operations that only move values."""

from ghn.tracing.passes.group import Groups

BYPASSED = frozenset({"shape", "dropout", "copy"})
"""Kinds that leave values as they are; a node of these kinds disappears if it has one source."""


def bypass(groups: Groups) -> None:
    """Remove operations that only move values, and operations without any source left."""
    target: dict[int, int] = {}
    for index, group in list(groups.items()):
        group.inputs = [(target.get(source, source), slot) for source, slot in group.inputs]
        distinct = list(dict.fromkeys(source for source, _ in group.inputs))
        movable = group.node.kind in BYPASSED or (
            group.node.kind in ("concat", "stack") and len(group.inputs) == 1
        )
        if movable and len(distinct) == 1 and groups[distinct[0]].node.kind != "parameter":
            target[index] = distinct[0]
            del groups[index]
