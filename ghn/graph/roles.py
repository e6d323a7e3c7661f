"""What each parameter is for: its role and the roles of its axes, read off the operations it reaches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ghn.graph.ops import ELEMENTWISE, MIXERS, NORMS
from ghn.graph.recorder import RawNode

AxisMap = tuple[int | None, ...]
"""For each axis of a derived tensor, the parameter's axis it comes from."""

NORM_SLOTS = {
    "batch_norm": (1, 2),
    "instance_norm": (1, 2),
    "layer_norm": (2, 3),
    "group_norm": (2, 3),
    "rms_norm": (2, 9),
}
"""Schema positions of weight and bias."""

RESHAPES = frozenset(
    "view _unsafe_view reshape view_as reshape_as flatten unflatten ravel _reshape_alias".split()
)
"""Shape operations that may join and split axes even where their number stays; the others keep the axes' order."""

BROADCASTS = frozenset("expand expand_as expand_copy broadcast_to repeat tile".split())
"""Shape operations that align axes from the last, adding new ones in front."""

CODED = frozenset({"linalg_householder_product"})
"""Operations on parameters whose operands are no numbers that a weight could have: torch's orthogonal parametrization
keeps reflections and signs."""

GATES = {"lstm": 4, "lstm_cell": 4, "gru": 3, "gru_cell": 3}


class Role(NamedTuple):
    """Role of a tensor in one use; ``axes`` are those of the tensor that the operation sees."""

    role: str
    axes: tuple[str, ...]
    groups: int = 1


@dataclass(frozen=True)
class Use:
    """A parameter, or a tensor computed from parameters alone, reaching an operation on activations."""

    node: int
    slot: int
    axes: AxisMap
    shape: tuple[int, ...]
    through: tuple[tuple[str, int], ...]
    """(kind, slot) of the parameter-only operations on the way."""


class RoleFinder:
    """Finds the roles of all parameters of one recorded run."""

    def __init__(self, nodes: list[RawNode]) -> None:
        self.nodes = nodes
        self.readers: list[list[tuple[int, int]]] = [[] for _ in nodes]
        self.constant = [False] * len(nodes)
        """Whether a node is computed from parameters (and constants) alone."""
        for index, node in enumerate(nodes):
            self.constant[index] = node.kind == "parameter" or (
                bool(node.inputs)
                and node.kind != "output"
                and all(self.constant[source] for source, _ in node.inputs)
                and not _maps_the_unrecorded(node)
            )
            for source, slot in node.inputs:
                self.readers[source].append((index, slot))

    def role(self, parameter: int) -> Role:
        """Role of the parameter recorded at a node, in terms of its own axes."""
        shape = self.nodes[parameter].shape
        uses = list(self._uses(parameter)) or list(self._inner_uses(parameter))
        if self._is_coded(parameter):
            uses = []
        found = [(self._role_of(use), use) for use in uses]
        if not found:
            return Role("unknown", ("unknown",) * len(shape))
        role, use = min(
            found, key=lambda pair: (pair[0].role != "embedding", pair[0].role in ("unknown", "matrix"))
        )
        axes = ["one" if size == 1 else "unknown" for size in shape]
        for axis, label in zip(use.axes, role.axes, strict=True):
            if axis is not None and axes[axis] == "unknown" and label != "one":
                axes[axis] = label
        return Role(role.role, tuple(axes), role.groups)

    def _is_coded(self, parameter: int) -> bool:
        """Whether what is computed from the parameter alone goes through an operation of ``CODED``."""
        seen, pending = {parameter}, [parameter]
        while pending:
            readers = {reader for reader, _ in self.readers[pending.pop()] if self.constant[reader]} - seen
            if any(self.nodes[reader].operation in CODED for reader in readers):
                return True
            seen |= readers
            pending += readers
        return False

    def _uses(self, parameter: int) -> Iterator[Use]:
        shape = self.nodes[parameter].shape
        identity: AxisMap = tuple(range(len(shape)))
        pending: list[tuple[int, AxisMap, tuple[tuple[str, int], ...]]] = [(parameter, identity, ())]
        seen = {parameter}
        while pending:
            index, axes, through = pending.pop(0)
            for reader, slot in self.readers[index]:
                node = self.nodes[reader]
                if not self.constant[reader]:
                    yield Use(reader, slot, axes, self.nodes[index].shape, through)
                elif reader not in seen:
                    seen.add(reader)
                    moved = move_axes(node, axes, self.nodes[index].shape)
                    if moved is not None:
                        pending.append((reader, moved, (*through, (node.kind, slot))))

    def _inner_uses(self, parameter: int) -> Iterator[Use]:
        """Uses among parameters alone: networks that compute position biases, gains inside weight standardization."""
        shape = self.nodes[parameter].shape
        for reader, slot in self.readers[parameter]:
            yield Use(reader, slot, tuple(range(len(shape))), shape, ())

    def _role_of(self, use: Use) -> Role:
        node, rank = self.nodes[use.node], len(use.shape)
        kinds = [kind for kind, _ in use.through]
        if ("weight_norm", 1) in use.through:
            return Role("weight_norm_scale", _vector(use.shape))
        mixing = self._mixing_role(node, use.slot, use.shape)
        if mixing is not None:
            return mixing
        if node.kind in NORM_SLOTS and use.slot in NORM_SLOTS[node.kind]:
            weight, _ = NORM_SLOTS[node.kind]
            return Role("norm_weight" if use.slot == weight else "norm_bias", _vector(use.shape))
        if node.kind == "prelu" and use.slot == 1:
            return Role("slope", _vector(use.shape))
        if node.kind == "attention":
            return Role("relative_bias", _heads(rank)) if use.slot == 3 else Role("token", _table(use.shape))
        if node.kind in ("concat", "stack", "where", "scatter", "copy", "index") and _extent(use.shape) >= 1:
            return Role("token", _table(use.shape))
        if node.kind in ("mul", "div") or node.operation in ("pow", "addcmul"):
            return self._multiplier(use, kinds)
        if node.kind in ("add", "sub"):
            return self._addend(use)
        if rank >= 2 and _extent(use.shape) >= 2:
            return Role("matrix", (*("out",) * (rank - 1), "in"))
        return Role("shift" if node.kind in ELEMENTWISE else "unknown", _vector(use.shape))

    def _mixing_role(self, node: RawNode, slot: int, shape: tuple[int, ...]) -> Role | None:
        """Role of an operand of a product over channels."""
        operation, rank = node.operation, len(shape)
        left, right = ("out", "in"), ("in", "out")
        if node.kind in ("conv", "conv_transpose") and slot in (1, 2):
            if slot == 2:
                return Role("bias", _vector(shape))
            transposed = node.kind == "conv_transpose" or node.arguments.get("transposed") is True
            groups = int(node.arguments.get("groups") or 1)
            ends = right if transposed else left
            return Role(
                "conv_transpose" if transposed else "conv", (*ends, *("spatial",) * (rank - 2)), groups
            )
        if operation == "linear" and slot in (1, 2):
            return Role("bias", _vector(shape)) if slot == 2 else _product(shape, left)
        if operation in ("addmm", "_addmm_activation", "baddbmm", "addmv", "addbmm"):
            if slot == 0:
                return Role("bias", _vector(shape))
            return _product(shape, left if slot == 1 else right)
        if operation in ("mm", "bmm", "matmul", "mv", "_grouped_mm"):
            return _product(shape, left if slot == 0 else right)
        if node.kind == "embedding" and slot == 0:
            counted = any(self._counts(source) for source, slot in node.inputs if slot == 1)
            return Role("position" if counted else "embedding", ("table", "channel")[-rank:])
        if node.kind == "recurrent" and slot >= 2 and rank <= 2:
            return _recurrent(node, slot, rank)
        if node.kind == "bilinear":
            return Role("bilinear", ("out", "in", "in")) if rank == 3 else Role("bias", _vector(shape))
        if node.kind == "einsum" and slot >= 1:
            return _einsum(str(node.arguments.get("equation", "")), slot - 1, rank)
        return None

    def _multiplier(self, use: Use, kinds: list[str]) -> Role:
        if "exp" in kinds or "softplus" in kinds:
            table = len(use.shape) == 2 and min(use.shape) > 1
            return Role("log_scale", ("channel", "unknown") if table else _vector(use.shape))
        others = [source for source, _ in self.nodes[use.node].inputs if not self.constant[source]]
        if any(self._normalized(source) for source in others):
            return Role("norm_weight", _vector(use.shape))
        if self.nodes[use.node].kind == "mul" and self._joins_residual(use.node):
            return Role("layer_scale", _vector(use.shape))
        return Role("scale", _vector(use.shape))

    def _addend(self, use: Use) -> Role:
        if self._reaches_softmax(use.node):
            return Role("relative_bias", _heads(len(use.shape)))
        if _extent(use.shape) >= 2:
            return Role("position", _table(use.shape))
        others = [source for source, _ in self.nodes[use.node].inputs if not self.constant[source]]
        for source in others:
            if self.nodes[source].kind == "mul" and self._normalized(source):
                return Role("norm_bias", _vector(use.shape))
            if self.nodes[self._origin(source)].kind in MIXERS:
                return Role("bias", _vector(use.shape))
        return Role("shift", _vector(use.shape))

    def _counts(self, index: int, depth: int = 8) -> bool:
        """Whether indices are running counts: RoBERTa's positions, of tokens that are no padding."""
        node = self.nodes[index]
        if node.kind == "cumsum" or depth == 0:
            return node.kind == "cumsum"
        return node.kind in ELEMENTWISE | {"shape"} and any(
            self._counts(source, depth - 1) for source, _ in node.inputs
        )

    def _origin(self, index: int) -> int:
        """Where a value was computed, looking through shape operations."""
        while self.nodes[index].kind in ("shape", "dropout") and self.nodes[index].inputs:
            index = self.nodes[index].inputs[0][0]
        return index

    def _normalized(self, index: int, depth: int = 5) -> bool:
        node = self.nodes[index]
        if node.kind in NORM_SLOTS and self._weighted(node):
            return False  # what multiplies it is no second weight
        if (
            node.kind in NORMS
            or node.kind == "rsqrt"
            or node.operation in ("linalg_vector_norm", "std", "var_mean")
        ):
            return True
        if depth == 0 or node.kind not in ELEMENTWISE | {"shape", "mean"}:
            return False
        return any(
            self._normalized(source, depth - 1) for source, _ in node.inputs if not self.constant[source]
        )

    def _weighted(self, norm: RawNode) -> bool:
        weight, _ = NORM_SLOTS[norm.kind]
        return any(slot == weight and self.constant[source] for source, slot in norm.inputs)

    def _joins_residual(self, index: int, depth: int = 4) -> bool:
        for reader, _ in self.readers[index]:
            node = self.nodes[reader]
            activations = [source for source, _ in node.inputs if not self.constant[source]]
            if node.kind == "add" and len(activations) == 2:
                return True
            light = node.kind in ("shape", "dropout", "mul", "div") and len(activations) == 1
            if depth and light and self._joins_residual(reader, depth - 1):
                return True
        return False

    def _reaches_softmax(self, index: int, depth: int = 5) -> bool:
        for reader, slot in self.readers[index]:
            node = self.nodes[reader]
            if node.kind == "softmax" or (node.kind == "attention" and slot == 3):
                return True
            if (
                depth
                and node.kind in ("shape", "add", "where", "clamp")
                and self._reaches_softmax(reader, depth - 1)
            ):
                return True
        return False


def _maps_the_unrecorded(node: RawNode) -> bool:
    """Whether a linear map or convolution reads what is computed from nothing, as waves of positions."""
    return node.kind in ("linear", "conv", "conv_transpose") and all(slot for _, slot in node.inputs)


def move_axes(node: RawNode, axes: AxisMap, before: tuple[int, ...]) -> AxisMap | None:
    """Follow axes through one parameter-only operation; None where they can't be followed."""
    operation, after, rank = node.operation.rstrip("_"), node.shape, len(before)
    if len(axes) != rank:  # an operation before this one could not be followed
        return None
    if operation in ("t", "numpy_T"):
        return axes[::-1]
    if operation in ("mT", "adjoint"):
        return (*axes[:-2], axes[-1], axes[-2])
    if operation in ("transpose", "swapaxes", "swapdims"):
        first, second = (int(value) for key, value in node.arguments.items() if key != "self")
        swapped = list(axes)
        swapped[first], swapped[second] = swapped[second], swapped[first]
        return tuple(swapped)
    if operation == "permute":
        return tuple(axes[axis] for axis in node.arguments["dims"])
    if operation in ("select", "unbind") and rank:
        dim = int(node.arguments.get("dim", 0)) % rank
        return (*axes[:dim], *axes[dim + 1 :])
    if operation == "stack":
        dim = int(node.arguments.get("dim", 0)) % (rank + 1)
        return (*axes[:dim], None, *axes[dim:])
    if operation == "embedding" or (operation == "index" and rank):
        kept = axes[1:]
        return (*(axes[0],) * (len(after) - len(kept)), *kept) if len(after) >= len(kept) else None
    if operation in BROADCASTS:
        return (*(None,) * (len(after) - rank), *axes)
    if operation in RESHAPES or (node.kind == "shape" and len(after) != rank):
        return _match_sizes(axes, before, after)
    return axes if len(after) == rank else None


def _match_sizes(axes: AxisMap, before: tuple[int, ...], after: tuple[int, ...]) -> AxisMap:
    """Follow axes through a reshape: equal sizes correspond, a split axis names all of its parts."""
    result: list[int | None] = []
    position, left = 0, 1
    for size in after:
        if size == 1:
            exact = position < len(before) and before[position] == 1 and left == 1
            result.append(axes[position] if exact else None)
            position += exact
            continue
        while position < len(before) and left == 1 and before[position] == 1:
            position += 1
        if position >= len(before):
            result.append(None)
            continue
        result.append(axes[position])
        left *= size
        covered = before[position]
        while covered < left and position + 1 < len(before):  # several axes merged into one
            position += 1
            covered *= before[position]
        if covered <= left:
            position, left = position + 1, 1
    return tuple(result)


def _extent(shape: tuple[int, ...]) -> int:
    """Number of axes longer than one."""
    return sum(size > 1 for size in shape)


def _vector(shape: tuple[int, ...]) -> tuple[str, ...]:
    return tuple("one" if size == 1 else "channel" for size in shape)


def _table(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Axes of a table of tokens: channels last, or second in an image-like (1, C, H, W)."""
    image = len(shape) == 4 and shape[2] == shape[3] > 1 and shape[1] > 1
    channel = 1 if image else max((axis for axis, size in enumerate(shape) if size > 1), default=-1)
    return tuple(
        "one" if size == 1 else "channel" if axis == channel else "table" for axis, size in enumerate(shape)
    )


def _heads(rank: int) -> tuple[str, ...]:
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
