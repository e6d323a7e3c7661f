"""Inputs and results that nobody reads."""

from ghn.tracing.passes.group import Groups, readers_of


def drop_unread(groups: Groups) -> None:
    """Remove inputs and results that nobody reads, unless only they use some parameter."""
    readers = readers_of(groups)
    for index in sorted(groups, reverse=True):
        group = groups[index]
        if readers[index] or group.node.kind == "output":
            continue
        sole = any(
            groups[source].node.kind == "parameter" and readers[source] == {index}
            for source, _ in group.inputs
        )
        if group.node.kind == "parameter" or not sole:
            for source, _ in group.inputs:
                readers[source].discard(index)
            del groups[index]
