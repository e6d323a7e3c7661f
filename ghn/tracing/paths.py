"""How a parameter reaches the operations that use it: along which axes, times which numbers, and through what."""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ghn.graph.ops import NORMS
from ghn.tracing.recorder import AS_SHAPED, RawNode

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

ALIGNED = frozenset("add sub mul div where clamp copy dropout neg floor sign tanh".split())
"""Kinds that align axes from the last too, if their operands have different numbers of them."""

FAITHFUL = ALIGNED | NORMS
FAITHFUL |= frozenset(
    "shape index gather scatter concat stack pad flip roll interpolate avg_pool adaptive_avg_pool embedding "
    "weight_norm".split()
)
"""Kinds through which a weight stays a weight: the result has its signs, and its size up to known numbers."""

LINEAR = FAITHFUL - NORMS - {"clamp", "floor", "sign", "tanh"}
"""Kinds through which a product of parameters stays one."""

QUOTIENTS = frozenset({"div", "true_divide"})

PRODUCTS: dict[str, tuple[int, int]] = {
    "linear": (0, 1),
    "mm": (0, 1),
    "bmm": (0, 1),
    "matmul": (0, 1),
    "mv": (0, 1),
    "addmm": (1, 2),
    "baddbmm": (1, 2),
    "outer": (0, 1),
}
"""Schema positions of both factors."""

ENTRY_BY_ENTRY = "another parameter multiplies it entry by entry, so neither has a size of its own"
NOISE = "random numbers multiply it: it is a scale of noise"
GENERATED = "it computes other parameters, and not as one of two factors"


@dataclass(frozen=True)
class Use:
    """A parameter, or a tensor computed from parameters alone, reaching an operation on activations."""

    node: int
    slot: int
    axes: AxisMap
    shape: tuple[int, ...]
    through: tuple[tuple[str, int], ...] = ()
    """(kind, slot) of the parameter-only operations on the way."""
    factor: float | None = 1.0
    """Product of the known numbers that multiply it on the way; None where a normalization undoes any."""
    offset: float = 0.0
    """Sum of the known numbers that are added to it on the way."""
    doubt: str = ""
    """What on the way leaves open which values would be right, were it a weight; empty if nothing does."""
    masked: bool = False
    """Known numbers, one for each entry, multiply it on the way."""
    gain: bool = False
    """It multiplies a larger tensor of parameters on the way, as the length of each row."""
    joins: tuple[tuple[int, int], ...] = ()
    """Axes of the parameter that a reshape merged into another one: (axis, the one that stands for both)."""
    sums: tuple[int, ...] = ()
    """Axes of the parameter over which a product with another one sums."""
    inner: "Use | None" = None
    """Its use in the first product with another parameter on the way."""

    @property
    def noisy(self) -> bool:
        """Whether random numbers multiply it."""
        return self.doubt == NOISE


class PathFinder:
    """Follows parameters through what is computed from parameters alone."""

    def __init__(self, nodes: list[RawNode]) -> None:
        self.nodes = nodes
        self.readers: list[list[tuple[int, int]]] = [[] for _ in nodes]
        self.constant = [False] * len(nodes)
        """Whether a node is computed from parameters (and constants) alone."""
        self.origins: list[frozenset[int]] = [frozenset()] * len(nodes)
        """Parameters whose values a constant node holds a function of."""
        self.plain = [False] * len(nodes)
        """Whether a constant node is a weight, or a product of weights."""
        self.noise = [False] * len(nodes)
        """Whether a constant node is drawn at random."""
        for index, node in enumerate(nodes):
            self.constant[index] = node.kind == "parameter" or (
                bool(node.inputs)
                and node.kind != "output"
                and all(self.constant[source] for source, _ in node.inputs)
                and not _maps_the_unrecorded(node)
            )
            for source, slot in node.inputs:
                self.readers[source].append((index, slot))
            if self.constant[index]:
                self._describe(index, node)

    def _describe(self, index: int, node: RawNode) -> None:
        if node.kind == "parameter":
            self.origins[index], self.plain[index] = frozenset({index}), True
            return
        if _ignores_values(node):
            self.noise[index] = node.kind == "random"
            return
        sources = [source for source, slot in node.inputs if not _asks_for_form(node, slot)]
        self.origins[index] = frozenset().union(*(self.origins[source] for source in sources))
        factored = node.operation in PRODUCTS and len(sources) <= 2
        self.plain[index] = (node.kind in LINEAR or factored) and all(
            self.plain[source] or not self.origins[source] for source in sources
        )
        self.noise[index] = not self.origins[index] and any(self.noise[source] for source in sources)

    def uses(self, parameter: int) -> Iterator[Use]:
        """Uses of the parameter recorded at a node, the undoubted ones first, near ones before far ones."""
        shape = self.nodes[parameter].shape
        pending: list[tuple[bool, int, Use]] = [
            (False, 0, Use(parameter, 0, tuple(range(len(shape))), shape))
        ]
        seen: set[int] = set()
        count = 0
        while pending:
            _, _, path = heapq.heappop(pending)
            if path.node in seen:
                continue
            seen.add(path.node)
            for reader, slot in self.readers[path.node]:
                node = self.nodes[reader]
                if not self.constant[reader] or slot in NORM_SLOTS.get(node.kind, ()):
                    yield replace(path, node=reader, slot=slot)
                elif not _ignores_values(node) and not _asks_for_form(node, slot):
                    count += 1
                    step = self._step(parameter, path, reader, slot)
                    heapq.heappush(pending, (bool(step.doubt), count, step))

    def reached_through(self, parameter: int, operations: frozenset[str]) -> bool:
        """Whether what is computed from the parameter alone goes through one of the operations."""
        seen, pending = {parameter}, [parameter]
        while pending:
            readers = {reader for reader, _ in self.readers[pending.pop()]} - seen
            if any(
                self.nodes[reader].operation in operations and self.constant[reader] for reader in readers
            ):
                return True
            readers = {reader for reader in readers if self.constant[reader]}
            seen |= readers
            pending += readers
        return False

    def _step(self, parameter: int, path: Use, reader: int, slot: int) -> Use:
        """A path with one more operation on parameters alone."""
        node, before = self.nodes[reader], path.shape
        step = replace(
            path, node=reader, slot=slot, shape=node.shape, through=(*path.through, (node.kind, slot))
        )
        others = [source for source, other in node.inputs if other != slot]
        if node.operation in PRODUCTS:
            step = replace(step, inner=path.inner or replace(path, node=reader, slot=slot))
            if slot not in PRODUCTS[node.operation]:
                return replace(step, axes=_align(path.axes, node.shape), doubt=path.doubt or GENERATED)
            axes, sums = product_axes(node.operation, slot == PRODUCTS[node.operation][1], path.axes)
            factors = [source for source, other in node.inputs if other in PRODUCTS[node.operation]]
            odd = any(self.origins[source] and not self.plain[source] for source in factors)
            fits = len(axes) == len(node.shape)
            return replace(
                step,
                axes=axes if fits else (None,) * len(node.shape),
                sums=(*path.sums, *sums),
                doubt=path.doubt or (GENERATED if odd or not fits else ""),
            )
        doubt, gain, factor, offset = path.doubt, path.gain, path.factor, path.offset
        if node.kind in ("mul", "div"):
            foreign = [source for source in others if self.origins[source] - {parameter}]
            if node.noisy or any(self.noise[source] for source in others):
                doubt = NOISE
            elif node.kind == "div" and slot and not foreign:
                doubt = doubt or "the model divides by it"
            for source in foreign:
                theirs = self.nodes[source].shape
                if extent(before) < extent(theirs):
                    gain = True
                elif extent(before) == extent(theirs):
                    doubt = doubt or ENTRY_BY_ENTRY
            own = node.kind == "div" and any(self.origins[source] == {parameter} for source in others)
            # What is written in place is the parameter itself: RWKV shrinks its weights wherever it doesn't learn.
            multiplier = 1.0 if node.operation.endswith("_") else node.factor
            factor = None if own or factor is None else factor * multiplier
        elif node.kind == "add" and isinstance(number := node.arguments.get("other"), int | float):
            offset += number
        elif node.kind in NORMS | {"weight_norm", "sign"}:
            factor = None
        if not _is_faithful(node, slot) or (path.inner and node.kind not in LINEAR):
            doubt = doubt or f"it acts through {node.operation.strip('_')!r}, so it is no weight itself"
        moved_axes, joins = move_axes(node, path.axes, before)
        return replace(
            step,
            axes=(None,) * len(node.shape) if moved_axes is None else moved_axes,
            joins=(*path.joins, *joins),
            doubt=doubt,
            gain=gain,
            masked=path.masked or _is_masked(node),
            factor=factor,
            offset=offset,
        )


def _is_faithful(node: RawNode, slot: int) -> bool:
    if node.kind == "div":
        return node.operation.rstrip("_") in QUOTIENTS
    if node.kind == "constant":
        return slot == 0 and node.operation.endswith("_")  # some entries are overwritten
    if node.kind == "add":
        return slot == 0 or node.operation not in ("addcmul", "addcdiv", "lerp")
    if node.kind == "clamp":
        least = node.arguments.get("min")
        return not isinstance(least, int | float) or least < 0
    return node.kind in FAITHFUL


def _is_masked(node: RawNode) -> bool:
    other = node.arguments.get("other")
    return (
        node.kind in ("mul", "div")
        and len(node.inputs) == 1
        and isinstance(other, tuple)
        and math.prod(other) > 1
    )


def _ignores_values(node: RawNode) -> bool:
    """Whether an operation only asks for a form: numbers drawn like a parameter, zeros of its shape."""
    return node.kind in ("random", "constant") and (
        node.operation.endswith("_like") or node.operation.startswith("new_")
    )


def _asks_for_form(node: RawNode, slot: int) -> bool:
    return slot == 1 and node.operation in AS_SHAPED | {"type_as"}


def _maps_the_unrecorded(node: RawNode) -> bool:
    """Whether a linear map or convolution reads what is computed from nothing, as waves of positions."""
    if node.kind == "einsum":
        return len(node.inputs) == 1 and str(node.arguments.get("equation")).count(",") == 1
    return node.kind in ("linear", "conv", "conv_transpose") and all(slot for _, slot in node.inputs)


def product_axes(operation: str, right: bool, axes: AxisMap) -> tuple[AxisMap, tuple[int, ...]]:
    """Follow the axes of one factor through a product of two.

    Args:
        operation: One of ``PRODUCTS``.
        right: Whether it is the second factor.
        axes: Axes of the factor.

    Returns:
        The result's axes, and those that are summed over.
    """
    if operation == "outer":
        return ((None, *axes) if right else (*axes, None)), ()
    if operation == "mv":
        return ((None,), _numbers(axes)) if right else (axes[:-1], _numbers(axes[-1:]))
    if len(axes) < 2:
        return (None,), _numbers(axes)
    if not right:
        return (*axes[:-1], None), _numbers(axes[-1:])
    if operation == "linear":
        return (None, axes[0]), _numbers(axes[1:])
    return (*axes[:-2], None, axes[-1]), _numbers(axes[-2:-1])


def _numbers(axes: AxisMap) -> tuple[int, ...]:
    return tuple(axis for axis in axes if axis is not None)


def move_axes(
    node: RawNode, axes: AxisMap, before: tuple[int, ...]
) -> tuple[AxisMap | None, tuple[tuple[int, int], ...]]:
    """Follow axes through one parameter-only operation.

    Returns:
        The result's axes, None where they can't be followed, and the axes that a reshape joined: each with the one that
        stands for it.
    """
    operation, after, rank = node.operation.rstrip("_"), node.shape, len(before)
    if len(axes) != rank:  # an operation before this one could not be followed
        return None, ()
    if operation in RESHAPES or (node.kind == "shape" and len(after) != rank and not _keeps(operation)):
        return _match_sizes(axes, before, after)
    return _move(node, operation, axes, after), ()


def _keeps(operation: str) -> bool:
    return operation in BROADCASTS | {"select", "unbind"}


def _move(node: RawNode, operation: str, axes: AxisMap, after: tuple[int, ...]) -> AxisMap | None:
    rank = len(axes)
    arguments: dict[str, Any] = node.arguments
    if operation in ("t", "numpy_T"):
        return axes[::-1]
    if operation in ("mT", "adjoint"):
        return (*axes[:-2], axes[-1], axes[-2])
    if operation in ("transpose", "swapaxes", "swapdims"):
        first, second = (int(value) for key, value in arguments.items() if key != "self")
        result = list(axes)
        result[first], result[second] = result[second], result[first]
        return tuple(result)
    if operation == "permute":
        return tuple(axes[axis] for axis in arguments["dims"])
    if operation in ("select", "unbind") and rank:
        dim = int(arguments.get("dim", 0)) % rank
        return (*axes[:dim], *axes[dim + 1 :])
    if operation == "stack":
        dim = int(arguments.get("dim", 0)) % (rank + 1)
        return (*axes[:dim], None, *axes[dim:])
    if operation == "embedding" or (operation == "index" and rank):
        rest = axes[1:]
        return (*(axes[0],) * (len(after) - len(rest)), *rest) if len(after) >= len(rest) else None
    if operation in BROADCASTS or (node.kind in ALIGNED and len(after) > rank):
        return _align(axes, after)
    return axes if len(after) == rank else None


def _align(axes: AxisMap, after: tuple[int, ...]) -> AxisMap:
    return (*(None,) * (len(after) - len(axes)), *axes)


def _match_sizes(
    axes: AxisMap, before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[AxisMap, tuple[tuple[int, int], ...]]:
    """Follow axes through a reshape: equal sizes correspond, a split axis names all of its parts."""
    result: list[int | None] = []
    joins: list[tuple[int, int]] = []
    position, target = 0, 1
    for size in after:
        if size == 1:
            exact = position < len(before) and before[position] == 1 and target == 1
            result.append(axes[position] if exact else None)
            position += exact
            continue
        while position < len(before) and target == 1 and before[position] == 1:
            position += 1
        if position >= len(before):
            result.append(None)
            continue
        first = axes[position]
        result.append(first)
        target *= size
        source = before[position]
        while source < target and position + 1 < len(before):  # several axes merged into one
            position += 1
            source *= before[position]
            other = axes[position]
            if first is not None and other is not None and first != other:
                joins.append((other, first))
        if source <= target:
            position, target = position + 1, 1
    return tuple(result), tuple(joins)


def extent(shape: tuple[int, ...]) -> int:
    """Number of axes longer than one."""
    return sum(size > 1 for size in shape)


def numel(shape: tuple[int, ...]) -> int:
    """Number of entries."""
    return math.prod(shape)
