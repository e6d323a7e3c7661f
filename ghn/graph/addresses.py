"""Where in its network each parameter sits, told by the graph alone: equal places of different networks share names.

An address has a *stage* of the trunk (how often the residual stream, or the chain of layers, has changed its width or
resolution), a *kind* (what the parameter's operation reads and what reads it, within a block), and the parameter's
relative *depth* among those of its kind in its stage. Neither widths nor names of modules enter, so a wide and deep
member of a family has the addresses of a narrow and shallow one.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ghn.graph.graph import ComputationGraph, Node, ParamSpec
from ghn.graph.ops import ACTIVATIONS, MIXING_ROLES

MERGES = frozenset({"add", "concat"})
POOLS = frozenset({"mean", "adaptive_avg_pool", "adaptive_max_pool"})
MOST_JOINING = 0.6
"""By this much, in octaves, a sequence may grow or shrink within a stage: class tokens and registers join it."""

MOST_STEPS = 6
"""Most steps of relative depth within a stage; layers of deeper networks share theirs with neighbours."""

_JOINING = POOLS | {"mul", "matmul", "einsum", "attention", "glu"}
"""Kinds that read one of several ways which meet again in a product: no fork of the trunk."""


@dataclass(frozen=True)
class Address:
    """The place of one parameter."""

    stage: int
    """Changes of the trunk's width or resolution before the end of the parameter's block."""
    kind: str
    """Role and surroundings within a block, such as 'conv3 trunk>act': a kernel that reads the residual stream."""
    index: int
    """Number of parameters of this kind in this stage that are executed before."""
    count: int
    """Number of parameters of this kind in this stage."""

    def depth(self, steps: int) -> int:
        """Relative depth in whole steps, from 0 to ``steps - 1``; the first and the last are for the ends alone.

        What the ends do, such as gathering the tokens before, must not be done twice.
        """
        if self.count <= steps or steps == 1:
            return min(self.index, steps - 1)
        step = round(self.index * (steps - 1) / (self.count - 1))
        if steps > 2 and 0 < self.index < self.count - 1:
            step = min(max(step, 1), steps - 2)
        return step


@dataclass(frozen=True)
class _Level:
    """Sizes of the trunk."""

    numbers: int
    """Elements in all: mixers transpose sequences, and some models flatten those of a batch into one, so that no axis
    says how long a sequence is."""
    channels: int = 0
    """Of an image; 0 for sequences."""
    pixels: int = 0
    """Of an image; 0 for sequences."""

    def differs(self, after: "_Level") -> bool:
        """Whether the width or resolution is another; a few tokens that join a sequence are no change."""
        if self.channels and after.channels:
            return self.channels != after.channels or abs(math.log2(after.pixels / self.pixels)) > 1
        return abs(math.log2(after.numbers / self.numbers)) > MOST_JOINING


@dataclass(frozen=True)
class _Operation:
    """What an operation with a matrix or table reads, and what reads it."""

    node: int
    spec: ParamSpec
    reads: str
    """'input', 'trunk', 'attention', 'product' and so on, with what lies between: 'trunkact', 'trunkpool'."""
    read_by: str
    """Likewise; 'q', 'k', 'v' or several of them if it is an attention."""
    writes: "_Level | None"
    """Sizes of the trunk that it writes to; None if it doesn't write to the trunk."""


def addresses(graph: ComputationGraph) -> dict[str, Address]:
    """The address of every attached parameter, by name."""
    walk = _Walk(graph)
    operations = walk.operations
    if not any(operation.writes for operation in operations if operation.reads != "input"):
        operations = [walk.as_trunk(operation) for operation in operations]
    stages: dict[int, int] = {}
    kinds: dict[int, str] = {}
    stage, level = -1, None
    pending: list[_Operation] = []
    for operation in operations:
        # Those of a block have the stage of the one that ends it by writing to the trunk.
        pending.append(operation)
        if operation.writes is None:
            continue
        if level is None or level.differs(operation.writes):
            stage += 1
        # What reads the input is a stage of its own, as wide as what follows or not.
        level = None if operation.reads == "input" else operation.writes
        stages |= dict.fromkeys((before.node for before in pending), stage)
        pending.clear()
    stages |= dict.fromkeys((before.node for before in pending), stage + 1)
    for operation in operations:
        shape = _shape(operation, graph) + (" of tokens" if operation.node in walk.over_tokens else "")
        kinds[operation.node] = f"{shape} {operation.reads}>{operation.read_by}"
    order: list[tuple[int, str, int, str]] = []
    main = {operation.spec.name: operation.node for operation in reversed(operations)}
    for spec in graph.params:
        if spec.node is None:
            continue
        if spec.name in main:
            node = main[spec.name]
            order.append((node, spec.name, stages[node], kinds[node]))
            continue
        anchor, side = walk.anchor(spec)
        made_by = walk.weights.get(anchor)
        of_images = made_by is not None and made_by.role == "conv"
        place = _grid(spec, graph.nodes[anchor].shape if of_images else ())
        kind = f"{spec.role}{place} {side} {kinds.get(anchor, '')}"
        order.append((walk.first_reader(spec), spec.name, stages.get(anchor, 0), kind))
    counts: dict[tuple[int, str], list[str]] = defaultdict(list)
    for _, name, at, kind in sorted(order):
        counts[at, kind].append(name)
    return {
        name: Address(at, kind, index, len(names))
        for (at, kind), names in counts.items()
        for index, name in enumerate(names)
    }


def _shape(operation: _Operation, graph: ComputationGraph) -> str:
    """Role and kernel class of the operation's weight; sizes where they say what the data is."""
    spec = operation.spec
    if spec.role == "embedding":
        return f"embedding/{spec.shape[0]}"
    kernel = [size for size, axis in zip(spec.shape, spec.axes, strict=True) if axis == "spatial"]
    axes = len(graph.nodes[operation.node].shape) - 2
    stride = graph.nodes[operation.node].attributes.get("stride", 1)
    step = max(stride) if isinstance(stride, tuple) else stride
    if operation.reads == "input" and spec.role == "conv" and step >= max(kernel, default=1):
        square = axes == 2 and (not kernel or kernel[0] == kernel[1])
        side = str(max(kernel, default=1))
        return f"patch{side}" if square else f"patch{'x'.join(map(str, kernel))} of {axes} axes"
    size = "k" if kernel and max(kernel) > 1 else ""
    if size and axes != 2:
        size = f"k{axes}"
    if spec.groups > 1:
        size += "d" if is_depthwise(spec) else "b" if is_grouped(spec) else "g"
    of = f"/{_channels(spec)}" if operation.read_by == "output" else ""
    return spec.role + size + of + _map(graph.nodes[operation.node].attributes.get("image"))


def _map(image: object) -> str:
    """Of a linear map that reads an image whole, how many points this has along a side."""
    if not isinstance(image, tuple):
        return ""
    _, height, width = image
    return f" map{height}" if height == width else f" map{height}x{width}"


def _grid(spec: ParamSpec, shape: tuple[int, ...]) -> str:
    """Of a table of positions, the octave of their number, and whether they are of an oblong grid; else empty.

    Args:
        spec: The parameter.
        shape: Of the images that a convolution made of what it is added to; empty if none did.
    """
    if spec.role != "position" or len(spec.shape) < 2:
        return ""
    oblong = " of an oblong" if len(shape) == 4 and shape[2] != shape[3] else ""
    return f"{round(math.log2(max(spec.shape[-2], 1)))}{oblong}"


class _Walk:
    """Follows activations from one operation with weights to the next."""

    def __init__(self, graph: ComputationGraph) -> None:
        self.graph = graph
        self.weights: dict[int, ParamSpec] = {}
        """The matrix, kernel or table of each operation that has one."""
        for node in range(len(graph.nodes)):
            specs = (s for s in graph.operands(node) if s.role in MIXING_ROLES or s.role == "embedding")
            if (weight := next(specs, None)) is not None:
                self.weights[node] = weight
        self.parts = self._attention_parts()
        """'q', 'k', 'v' or several of them, by name of the weight that makes them."""
        self.reads: dict[int, str] = {}
        """What the operations before read, as ``_Operation.reads``."""
        self.squeezes: set[int] = set()
        """Products by which squeeze-and-excitations gate."""
        self.over_tokens: set[int] = set()
        """Maps of sequences that mix tokens instead of channels, as an MLP-Mixer's."""

    def _attention_parts(self) -> dict[str, str]:
        parts: dict[str, str] = {}
        for attention in self.graph.attentions:
            for part, channels in (("q", attention.query), ("k", attention.key), ("v", attention.value)):
                if channels is not None and part not in parts.get(channels.weight.name, ""):
                    parts[channels.weight.name] = parts.get(channels.weight.name, "") + part
        return parts

    @cached_property
    def operations(self) -> list[_Operation]:
        """All operations with weights, in execution order."""
        return [self._operation(node, spec) for node, spec in sorted(self.weights.items())]

    @cached_property
    def trunk(self) -> set[int]:
        """Activations that are the result of a merge, or that several operations read (gates and products apart)."""
        return {
            node.index
            for node in self.graph.nodes
            if self.is_merge(node)
            or len({r for r in self.readers(node.index) if self.graph.nodes[r].kind not in _JOINING}) > 1
        }

    def readers(self, index: int) -> Sequence[int]:
        """What reads an activation; that it is returned, too (cached keys, features), makes no other network."""
        readers = self.graph.readers(index)
        return [reader for reader in readers if self.graph.nodes[reader].kind != "output"] or readers

    def is_merge(self, node: Node) -> bool:
        """Whether an operation joins a branch to the trunk: a residual addition or a concatenation."""
        sources = set(self.graph.activations(node.index))
        if node.kind not in MERGES or len(sources) < 2 or self._sums_heads(node):
            return False
        return node.kind == "concat" or all(
            math.prod(self.graph.nodes[source].shape[1:]) == math.prod(node.shape[1:]) for source in sources
        )

    def _sums_heads(self, node: Node) -> bool:
        """Whether an addition joins the results of several heads, such as DeiT's two: nothing learns behind it."""
        if node.kind != "add" or node.index < max(self.weights, default=0):
            return False
        for source in self.graph.activations(node.index):
            current = source
            while current not in self.weights:
                before = self.graph.activations(current)
                if len(before) != 1:
                    return False
                current = before[0]
        return True

    def is_gate(self, node: Node) -> bool:
        """Whether an operation multiplies an activation by one that broadcasts."""
        size = math.prod(node.shape)
        return node.kind == "mul" and any(
            math.prod(self.graph.nodes[s].shape) < size for s in self.graph.activations(node.index)
        )

    def is_product(self, node: Node) -> bool:
        """Whether an operation multiplies activations by each other."""
        several = len(set(self.graph.activations(node.index))) > 1
        return node.kind in ("attention", "glu") or (node.kind in ("mul", "matmul", "einsum") and several)

    def _operation(self, index: int, spec: ParamSpec) -> _Operation:
        reads = self.reads[index] = self._reads(index)
        if self._mixes_tokens(index, spec):
            self.over_tokens.add(index)
        read_by, end = self._read_by(index, spec)
        if reads == "input" and read_by != "output":
            return _Operation(index, spec, reads, "trunk", self._level(spec, index))
        writes = None
        if read_by == "trunk":
            merged = self.graph.nodes[end].kind != "concat"
            writes = self._level(spec, end if merged else index)
        return _Operation(index, spec, reads, read_by, writes)

    def as_trunk(self, operation: _Operation) -> _Operation:
        """The operation of a network without merges: all but gates and the last write to the trunk.

        Vectors behind an image are one stage, however wide they are.
        """
        if operation.read_by in ("output", "gate", "gated"):
            return operation
        is_vector = len(self.graph.nodes[operation.node].shape) == 2
        writes = _Level(1) if is_vector else self._level(operation.spec, operation.node)
        return replace(operation, writes=writes)

    def _level(self, spec: ParamSpec, node: int) -> _Level:
        shape = self.graph.nodes[node].shape
        numbers = math.prod(shape)
        if len(shape) < 4:
            return _Level(numbers)
        channels = max(1, _channels(spec))
        return _Level(numbers, channels, math.prod(shape[1:]) // channels)

    def _mixes_tokens(self, index: int, spec: ParamSpec) -> bool:
        """Whether a map reads a sequence turned over, or goes on within one that is."""
        after = self.graph.nodes[index].shape
        if spec.role != "linear" or len(after) != 3 or not self.graph.activations(index):
            return False
        before = self.graph.nodes[self.graph.activations(index)[0]].shape
        if len(before) == 3 and before[1] != before[2] and after[1] == before[2]:
            return _inputs(spec) == before[1]
        current = index
        while self.graph.activations(current):
            current = self.graph.activations(current)[0]
            if current in self.weights:
                return current in self.over_tokens
            if current in self.trunk or self.graph.nodes[current].shape[:-1] != after[:-1]:
                return False
        return False

    def _reads(self, index: int) -> str:
        passed = ""
        current = index
        for _ in range(len(self.graph.nodes)):
            sources = self.graph.activations(current)
            if not sources:
                return "constant"
            before = sources[0]
            node = self.graph.nodes[before]
            if self.is_gate(self.graph.nodes[current]) or current in self.squeezes:
                before = max(sources, key=lambda s: math.prod(self.graph.nodes[s].shape))
                node = self.graph.nodes[before]
            if node.kind == "input":
                return "input"
            if before in self.trunk:
                return "trunk" + passed
            if before in self.weights:
                own = "act" if "act" in passed else "pass" if is_depthwise(self.weights[before]) else "trunk"
                if self.reads.get(before) == "input":
                    own = "trunk"
                if "pool" in self.reads.get(before, ""):
                    own = "squeezed"
                return own + ("pool" if "pool" in passed else "")
            if self.is_product(node) and not self.is_gate(node) and before not in self.squeezes:
                return ("attention" if node.kind != "mul" else "product") + passed
            if node.kind in ACTIVATIONS:
                passed += "act" if "act" not in passed else ""
            if node.kind in POOLS:
                passed += "pool" if "pool" not in passed else ""
            current = before
        return "loop"

    def _read_by(self, index: int, spec: ParamSpec) -> tuple[str, int]:
        if spec.name in self.parts:
            return self.parts[spec.name], index
        current, acted = index, False
        for _ in range(len(self.graph.nodes)):
            if (current in self.trunk and current != index) or (
                current in self.trunk and self.readers(current)
            ):
                return "trunk", current
            readers = self.readers(current)
            if not readers:
                return "output", current
            merge = next((r for r in readers if self.is_merge(self.graph.nodes[r])), None)
            if merge is not None:
                return "trunk", merge
            after = max(readers)
            node = self.graph.nodes[after]
            if node.kind == "output":
                return "output", current
            if after in self.weights:
                if acted or is_depthwise(spec):
                    squeezes = "pool" in self.reads[index] and self._gated(after)
                    return ("gated" if squeezes else "act" if acted else "pass"), current
                return "trunk", current
            squeezed = self.reads[index].startswith("squeezed") or "pool" in self.reads[index]
            if squeezed and (self.is_gate(node) or self.is_product(node)):
                self.squeezes.add(after)
                return "gate", current
            if self.is_gate(node) and math.prod(self.graph.nodes[current].shape) < math.prod(node.shape):
                return "gate", current
            pooled = any(self.graph.nodes[reader].kind in POOLS for reader in readers)
            if self.is_product(node) and not self.is_gate(node) and not pooled:
                return ("product" if node.kind == "mul" else "attention") + ("act" if acted else ""), current
            acted = acted or node.kind in ACTIVATIONS
            current = after
        return "loop", current

    def _gated(self, index: int) -> bool:
        """Whether an operation is the one whose result gates another activation."""
        current = index
        for _ in range(8):
            readers = self.readers(current)
            if len(readers) != 1:
                return False
            node = self.graph.nodes[readers[0]]
            if self.is_gate(node) or self.is_product(node):
                return True
            if node.index in self.weights:
                return False
            current = node.index
        return False

    def first_reader(self, spec: ParamSpec) -> int:
        """The first operation that uses a parameter."""
        return min(self.graph.readers(spec.node), default=0) if spec.node is not None else 0

    def anchor(self, spec: ParamSpec) -> tuple[int, str]:
        """The operation with weights that a vector belongs to: its own, the one before, or the one behind a merge.

        Returns:
            Its node, -1 if there is none, and where the vector is: 'at', 'after' or 'before' it, or at the 'end'.
        """
        at = self.first_reader(spec)
        if at in self.weights:
            return at, "at"
        current = at
        for _ in range(len(self.graph.nodes)):
            sources = self.graph.activations(current)
            if not sources or (current in self.trunk and current != at):
                break
            before = max(sources, key=lambda s: (math.prod(self.graph.nodes[s].shape), -s))
            if before in self.weights and before not in self.trunk:
                return before, "after"
            if before in self.trunk or self.graph.nodes[before].kind == "input":
                break
            current = before
        current = at
        for _ in range(len(self.graph.nodes)):
            readers = self.readers(current)
            if not readers:
                return -1, "end"
            following = [r for r in readers if r in self.weights]
            if following:
                return min(following), "before"
            current = min(readers)
        return -1, "end"


def is_depthwise(spec: ParamSpec) -> bool:
    """Whether each channel is made of one of its own alone."""
    return spec.groups > 1 and "in" not in spec.axes


def is_grouped(spec: ParamSpec) -> bool:
    """Whether a weight is a convolution of groups that have several inputs each: a block-diagonal matrix."""
    return spec.groups > 1 and spec.role == "conv" and "in" in spec.axes


def _inputs(spec: ParamSpec) -> int:
    """Numbers that one output of a weight reads."""
    return math.prod(size for size, axis in zip(spec.shape, spec.axes, strict=True) if axis == "in")


def _channels(spec: ParamSpec) -> int:
    """Output channels of a weight."""
    sizes = [size for size, axis in zip(spec.shape, spec.axes, strict=True) if axis == "out"]
    if spec.role == "embedding":
        return spec.shape[-1]
    return math.prod(sizes) * (spec.groups if spec.role == "conv_transpose" else 1)
