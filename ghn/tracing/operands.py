"""Roles of what an operation that mixes channels, or looks rows up, reads beside activations."""

from typing import NamedTuple

from ghn.tracing.recorder import RawNode

GATES = {"lstm": 4, "lstm_cell": 4, "gru": 3, "gru_cell": 3}


class Role(NamedTuple):
    """Role of a tensor in one use; ``axes`` are those of the tensor that the operation sees."""

    role: str
    axes: tuple[str, ...]
    groups: int = 1
    factor: float = 1.0
    """Known number that the tensor is multiplied by."""
    behind: float = 1.0
    """Known number that multiplies what its operation makes."""
    centre: float | None = None
    """Where its values lie, if not where its role says."""
    reason: str = ""
    """Why the role is 'unknown'."""


def unknown_role(shape: tuple[int, ...], reason: str) -> Role:
    """Role of a parameter that the graph doesn't say enough about."""
    return Role("unknown", ("unknown",) * len(shape), reason=reason)


def mixing_role(node: RawNode, slot: int, shape: tuple[int, ...], counted: bool) -> Role | None:
    """Role of an operand of a product over channels; None if the operation is none.

    Args:
        node: The operation.
        slot: Schema position of the operand.
        shape: Shape of the operand.
        counted: Whether the indices of a look-up are running counts.
    """
    operation, rank = node.operation, len(shape)
    left, right = ("out", "in"), ("in", "out")
    if node.kind in ("conv", "conv_transpose") and slot in (1, 2):
        if slot == 2:
            return Role("bias", vector(shape))
        transposed = node.kind == "conv_transpose" or node.arguments.get("transposed") is True
        groups = int(node.arguments.get("groups") or 1)
        ends = right if transposed else left
        return Role("conv_transpose" if transposed else "conv", (*ends, *("spatial",) * (rank - 2)), groups)
    if operation == "linear" and slot in (1, 2):
        return Role("bias", vector(shape)) if slot == 2 else _product(shape, left)
    if operation in ("addmm", "_addmm_activation", "baddbmm", "addmv", "addbmm"):
        if slot == 0:
            return Role("bias", vector(shape))
        return _product(shape, left if slot == 1 else right)
    if operation in ("mm", "bmm", "matmul", "mv", "_grouped_mm"):
        return _product(shape, left if slot == 0 else right)
    if node.kind == "embedding" and slot == 0:
        return Role("position" if counted else "embedding", ("table", "channel")[-rank:])
    if node.kind == "recurrent" and slot >= 2 and rank <= 2:
        return _recurrent(node, slot, rank)
    if node.kind == "bilinear":
        return Role("bilinear", ("out", "in", "in")) if rank == 3 else Role("bias", vector(shape))
    if node.kind == "einsum" and slot >= 1:
        return _einsum(str(node.arguments.get("equation", "")), slot - 1, rank)
    return None


def vector(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Axes of something that acts entry by entry."""
    return tuple("one" if size == 1 else "channel" for size in shape)


def table(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Axes of a table of tokens: channels last, or second in an image-like (1, C, H, W)."""
    image = len(shape) == 4 and shape[2] == shape[3] > 1 and shape[1] > 1
    channel = 1 if image else max((axis for axis, size in enumerate(shape) if size > 1), default=-1)
    return tuple(
        "one" if size == 1 else "channel" if axis == channel else "table" for axis, size in enumerate(shape)
    )


def heads(rank: int) -> tuple[str, ...]:
    """Attention biases have the shape (..., heads, queries, keys)."""
    return (*("one",) * (rank - 3), *("head", "table", "table")[-rank:]) if rank else ()


def _product(shape: tuple[int, ...], ends: tuple[str, str]) -> Role:
    rank = len(shape)
    if rank <= 1:
        return Role("matrix", ("in",) * rank)
    banks = tuple("one" if size == 1 else "expert" for size in shape[:-2])
    return Role("expert" if "expert" in banks else "linear", (*banks, *ends))


def _recurrent(node: RawNode, slot: int, rank: int) -> Role:
    """Role of an RNN's parameter by its place in the list: per layer and direction weights, biases, projection."""
    names, arguments = list(node.arguments), node.arguments
    place = slot - (
        names.index("params") if "params" in names else 2
    )  # cells have them as arguments of their own
    if "params" in names:
        layers = arguments["num_layers"] * (2 if arguments["bidirectional"] else 1)
        place %= len(arguments["params"]) // layers
    if rank == 1:
        return Role("bias", ("channel",))
    if place > 1:
        return Role("linear", ("out", "in"))
    role = "recurrent_hidden" if place else "recurrent_input"
    return Role(role, ("out", "in"), GATES.get(node.operation, 1))


def _einsum(equation: str, operand: int, rank: int) -> Role | None:
    """Axes of an einsum's operand: summed ones are inputs, shared ones with the result only number experts."""
    inputs, _, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not output or operand >= len(terms) or "." in terms[operand] or len(terms[operand]) != rank:
        return Role("matrix", (*("out",) * (rank - 1), "in")) if rank >= 2 else None
    others = set("".join(term for number, term in enumerate(terms) if number != operand))
    axes = tuple(
        "in" if label not in output else "expert" if label in others else "out" for label in terms[operand]
    )
    if "in" not in axes:
        return Role("scale", axes) if "out" not in axes else Role("matrix", axes)
    return Role("expert" if "expert" in axes else "linear", axes)
