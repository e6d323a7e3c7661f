"""What is computed from parameters alone."""

from ghn.tracing.passes.group import Groups
from ghn.tracing.roles import RoleFinder


def fold_constants(groups: Groups, finder: RoleFinder) -> None:
    """Let parameters reach the operations that use them directly, dropping what is computed from parameters alone."""
    parameters: dict[int, list[int]] = {}
    for index, group in list(groups.items()):
        if group.node.kind == "parameter":
            parameters[index] = [index]
        elif finder.constant[index] and finder.readers[index]:
            sources = [parameter for source, _ in group.inputs for parameter in parameters[source]]
            parameters[index] = list(dict.fromkeys(sources))
            del groups[index]
        else:
            group.inputs = [
                (parameter, slot)
                for source, slot in group.inputs
                for parameter in parameters.get(source, [source])
            ]
