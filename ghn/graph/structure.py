"""Patterns in a graph that initialization depends on: residual branches and attention."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ghn.graph.graph import ComputationGraph, ParamSpec
from ghn.graph.ops import ELEMENTWISE, MIXING_ROLES, NORMS, PRODUCTS

ENDING_ROLES = ("layer_scale", "norm_weight", "linear", "conv", "conv_transpose", "expert", "matrix")
"""Roles of parameters that set the size of a residual branch, the last one to act first."""

PASSED = ELEMENTWISE | NORMS | {"prelu", "roll", "index", "gather", "scatter", "sum", "pad", "flip", "shape"}
"""Kinds between the end of a branch and its addition."""

GATES = frozenset({"sigmoid", "hardsigmoid", "softmax", "tanh", "compare", "logical"})


@dataclass(frozen=True)
class ResidualAdd:
    """One addition of a branch to what it branched from."""

    node: int
    """Index of the 'add' node."""
    branch_ends: tuple[str, ...]
    """Names of the parameters that set the branch's size: its layer scale, else its last norm's weight, else the
    weight of its last linear map or convolution; empty if the branch ends in none of them."""
    bare: bool = False
    """Whether the branch has no matrix or kernel, as a pooling."""


def find_residual_adds(graph: ComputationGraph) -> list[ResidualAdd]:
    """Find the residual additions of a graph, in execution order.

    Of two activations that are added, one is the branch if it was computed from the other, or if both were computed
    from something else and it took more operations (a projected shortcut). Neither is spread over axes that the other
    has: a time added to all pixels, or a query to all keys, is a condition.
    """
    branches = _Branches(graph)
    inner: set[int] = set()
    residuals = []
    adds = [(node.index, *branches.activations(node.index)) for node in graph.nodes if node.kind == "add"]
    elements = [math.prod(node.shape) for node in graph.nodes]
    pairs = [
        (index, *sources)
        for index, *sources in adds
        if len(sources) == 2 and all(elements[source] >= elements[index] for source in sources)
    ]
    for index, first, second in pairs:
        if branches.computed_from(second, first):
            trunk, branch = first, second
        elif branches.computed_from(first, second):
            trunk, branch = second, first
        else:
            continue
        shared = branches.down_to(trunk)
        ends, passed = branches.ends(branch, shared)
        inner |= passed
        residuals.append(ResidualAdd(index, ends, branches.is_bare(branch, shared)))
    taken = inner | {add.node for add in residuals}
    for index, first, second in pairs:
        depths = branches.depth[first], branches.depth[second]
        related = branches.above[first] & branches.above[second]
        if index not in taken and related and depths[0] != depths[1]:
            ends, _ = branches.ends(first if depths[0] > depths[1] else second, related)
            residuals.append(ResidualAdd(index, ends))
    return sorted((add for add in residuals if add.branch_ends), key=lambda add: add.node)


class _Branches:
    """Who was computed from whom, and what sets the size of a branch."""

    def __init__(self, graph: ComputationGraph) -> None:
        self.graph = graph
        self.depth = [0] * len(graph.nodes)
        self.above = [0] * len(graph.nodes)
        """Activations a node was computed from, one bit each."""
        self.mixing = 0
        """Operations with a matrix or kernel, one bit each."""
        for node in range(len(graph.nodes)):
            if any(spec.role in MIXING_ROLES for spec in graph.operands(node)):
                self.mixing |= 1 << node
            for source in graph.activations(node):
                self.depth[node] = max(self.depth[node], self.depth[source] + 1)
                self.above[node] |= self.above[source] | 1 << source

    def activations(self, index: int) -> list[int]:
        """Distinct activations that a node reads, by slot."""
        return list(dict.fromkeys(self.graph.activations(index)))

    def computed_from(self, later: int, earlier: int) -> bool:
        """Whether a node is downstream of another."""
        return bool(self.above[later] >> earlier & 1)

    def down_to(self, index: int) -> int:
        """A node and the activations it was computed from, one bit each."""
        return self.above[index] | 1 << index

    def is_bare(self, index: int, shared: int) -> bool:
        """Whether nothing on a branch mixes by a learned matrix; arguments are those of ``ends``."""
        return not self.down_to(index) & ~shared & self.mixing

    def ends(self, index: int, shared: int) -> tuple[tuple[str, ...], set[int]]:
        """Names of the parameters that set a branch's size, and the additions passed on the way to them.

        Args:
            index: Last activation of the branch.
            shared: Activations that are not the branch's alone, one bit each.
        """
        frontier, seen, ends = [index], {index}, []
        while frontier:
            current = frontier.pop(0)
            if shared >> current & 1:
                continue
            kind = self.graph.nodes[current].kind
            names = [spec.name for spec in self.graph.operands(current) if spec.role in ENDING_ROLES]
            ends += names
            if names or kind not in PASSED:
                continue
            before = self.activations(current)
            # A gate scales the branch; what it gates is the branch.
            before = [source for source in before if self.graph.nodes[source].kind not in GATES] or before
            before = [source for source in (before if kind == "add" else before[:1]) if source not in seen]
            frontier += before
            seen |= set(before)
        return tuple(dict.fromkeys(ends)), {node for node in seen if self.graph.nodes[node].kind == "add"}


@dataclass(frozen=True, kw_only=True)
class HeadChannels:
    """The outputs of a linear map that the heads of an attention read as queries, keys or values."""

    weight: ParamSpec
    """Of the linear map; rows of other projections may share it, in any order."""
    offset: int
    group: int
    """Neighbouring heads that read the same channels (grouped-query attention); 1 if each has its own."""
    head_stride: int
    stride: int

    def rows(self, heads: int, width: int) -> Tensor:
        """Numbers of the outputs, long, shape ``(heads, width)``; a head that shares its channels repeats them."""
        start = self.offset + torch.arange(heads) // self.group * self.head_stride
        return start[:, None] + torch.arange(width) * self.stride


@dataclass(frozen=True)
class Rotary:
    """The pairs of channels of every head's query and key that rotary embeddings turn by position.

    References:
        RoFormer, https://arxiv.org/abs/2104.09864
    """

    offset: int
    stride: int
    gap: int
    pairs: int

    @property
    def first(self) -> Tensor:
        """First channel of each pair, long, shape ``(pairs,)``; in all known models the first pair turns fastest."""
        return self.offset + torch.arange(self.pairs) * self.stride

    @property
    def second(self) -> Tensor:
        """Second channel of each pair, long, shape ``(pairs,)``."""
        return self.first + self.gap


@dataclass(frozen=True, kw_only=True)
class Attention:
    """A scaled dot-product attention between linear maps."""

    node: int
    """Index of the 'attention' node."""
    heads: int
    width: int
    """Channels of one head's query and key."""
    query: HeadChannels
    key: HeadChannels
    value: HeadChannels | None
    projection: ParamSpec | None
    """Weight of the linear map that reads all heads' results, one head after the other."""
    causal: bool
    """Whether a mask hides later tokens, and those alone."""
    rotary: Rotary | None

    @property
    def names(self) -> set[str]:
        """Of the weights that make what it reads, and of the one that reads what it makes."""
        maps = [channels.weight for channels in (self.query, self.key, self.value) if channels]
        return {weight.name for weight in (*maps, self.projection) if weight}


def has_attention(graph: ComputationGraph) -> bool:
    """Whether a graph has attention in any form: as a node, or as a softmax that a product of activations reads."""
    return any(
        node.kind == "attention"
        or (
            node.kind == "softmax"
            and any(graph.nodes[reader].kind in PRODUCTS for reader in graph.readers(node.index))
        )
        for node in graph.nodes
    )


def find_attentions(graph: ComputationGraph) -> list[Attention]:
    """Find the attention nodes whose queries and keys are channels of linear maps, in execution order.

    Which channels was followed through every view during the trace, so interleaved and grouped heads come out right.
    """
    attentions: list[Attention] = []
    for node in graph.nodes:
        facts = {name: value for name, value in node.attributes.items() if isinstance(value, tuple)}
        heads, width = node.attributes.get("heads"), node.attributes.get("width")
        if node.kind != "attention" or not isinstance(heads, int) or not isinstance(width, int):
            continue
        channels = {
            name: _head_channels(graph, facts[name]) for name in ("query", "key", "value") if name in facts
        }
        if "query" in channels and "key" in channels:
            attentions.append(
                Attention(
                    node=node.index,
                    heads=heads,
                    width=width,
                    query=channels["query"],
                    key=channels["key"],
                    value=channels.get("value"),
                    projection=graph.params[facts["projection"][0]] if "projection" in facts else None,
                    causal=bool(node.attributes.get("causal")),
                    rotary=Rotary(*facts["rotary"]) if "rotary" in facts else None,
                )
            )
    return attentions


def _head_channels(graph: ComputationGraph, fact: tuple[int, ...]) -> HeadChannels:
    parameter, offset, group, head_stride, stride = fact
    return HeadChannels(
        weight=graph.params[parameter], offset=offset, group=group, head_stride=head_stride, stride=stride
    )
