"""The traced target: nodes, edges and one specification per parameter tensor."""

import copy
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ghn.errors import ShapeError

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from ghn.graph.structure import Attention, ResidualAdd


class Edge(NamedTuple):
    """Data flows from node ``source`` into input number ``slot`` of node ``target``."""

    source: int
    target: int
    slot: int


@dataclass(frozen=True, kw_only=True)
class Node:
    """One input, parameter or executed operation of the target."""

    index: int
    """Position in ``ComputationGraph.nodes``; nodes are in execution (topological) order."""
    kind: str
    """A name from ``ghn.graph.ops.KINDS``."""
    module: str = ""
    """Qualified name of the module that ran the operation; the root module is the empty string."""
    shape: tuple[int, ...] = ()
    """Shape of the (first) output, batch axis of the example input included."""
    attributes: Mapping[str, float | tuple[int, ...]] = field(default_factory=dict)
    """Facts the operation was called with: kernel, stride, dilation, groups, heads, factor …"""
    param: str | None = None
    """For ``kind='parameter'``: the ``ParamSpec.name`` it stands for."""


@dataclass(frozen=True, kw_only=True)
class ParamSpec:
    """One distinct parameter tensor of the target, under all of its names."""

    names: tuple[str, ...]
    """Qualified names in ``named_parameters(remove_duplicate=False)`` order; more than one if the tensor is tied."""
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    role: str = "unknown"
    """What the tensor does in the operation that consumes it: a name from ``ghn.graph.ops.ROLES``."""
    axes: tuple[str, ...] = ()
    """Role of each axis, names from ``ghn.graph.ops.AXES``; as many as ``shape`` has entries."""
    groups: int = 1
    """Groups of a convolution, gates of a recurrent block; 1 elsewhere."""
    factor: float = 1.0
    """Known number that multiplies it before its operation, as in equalized learning rates."""
    behind: float = 1.0
    """Known number that multiplies what its map makes, if it isn't a part of ``factor``: a damped branch's, say."""
    centre: float | None = None
    """Where its values lie, if the way to its operation says so: 0 for what is exponentiated and multiplies."""
    trainable: bool = True
    """``requires_grad`` of the target's tensor."""
    node: int | None = None
    """Index of its node; None if no executed operation uses the tensor."""
    reason: str = ""
    """Why the tensor keeps the model's own values: nothing uses it, or nobody knows better; empty otherwise."""

    @property
    def name(self) -> str:
        """The first of ``names``: how reports and predictions call the tensor."""
        return self.names[0]

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class _Neighbours(NamedTuple):
    """Numbers of nodes, by number of the node that they are beside."""

    sources: list[list[int]]
    activations: list[list[int]]
    readers: list[list[int]]


_WITHOUT_REASONS = ("_neighbours", "_data", "residual_adds")
"""What is computed lazily, once, and whatever ``ParamSpec.reason`` says."""


@dataclass(frozen=True, kw_only=True)
class ComputationGraph:
    """What a model computes, as a directed acyclic graph; see ``ghn.trace``."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    params: tuple[ParamSpec, ...]
    """One entry per distinct parameter tensor of the model, in ``named_parameters`` order."""
    notes: tuple[str, ...] = ()
    """What a reader should know of the trace: second pass in train mode, constants answered by a rule …"""

    def sources(self, node: int) -> Sequence[int]:
        """Numbers of the nodes that one reads, by slot; one that is read twice is there twice."""
        return self._neighbours.sources[node]

    def activations(self, node: int) -> Sequence[int]:
        """``sources`` without parameters."""
        return self._neighbours.activations[node]

    def readers(self, node: int) -> Sequence[int]:
        """Numbers of the nodes that read one, in execution order; one that reads it twice is there twice."""
        return self._neighbours.readers[node]

    def operands(self, node: int) -> list[ParamSpec]:
        """The parameters that a node reads, by slot."""
        return [self.params_by_node[source] for source in self.sources(node) if source in self.params_by_node]

    @cached_property
    def params_by_node(self) -> Mapping[int, ParamSpec]:
        """The attached parameters by the number of their node."""
        return {spec.node: spec for spec in self.params if spec.node is not None}

    @cached_property
    def attentions(self) -> Sequence["Attention"]:
        """The attentions whose queries and keys are channels of linear maps; see ``ghn.graph.structure``."""
        from ghn.graph.structure import find_attentions

        return find_attentions(self)

    @cached_property
    def residual_adds(self) -> Sequence["ResidualAdd"]:
        """The additions of a branch to what it branched from; see ``ghn.graph.structure``."""
        from ghn.graph.structure import find_residual_adds

        return find_residual_adds(self)

    @cached_property
    def _neighbours(self) -> "_Neighbours":
        count = len(self.nodes)
        neighbours = _Neighbours(
            [[] for _ in range(count)], [[] for _ in range(count)], [[] for _ in range(count)]
        )
        for source, target, _ in sorted(self.edges, key=lambda edge: (edge.target, edge.slot)):
            neighbours.sources[target].append(source)
            neighbours.readers[source].append(target)
            if self.nodes[source].kind != "parameter":
                neighbours.activations[target].append(source)
        return neighbours

    def coverage(self) -> float:
        """Share of parameter tensors that an executed operation uses, in [0, 1]; 1 for a model without any."""
        if not self.params:
            return 1.0
        return sum(spec.node is not None for spec in self.params) / len(self.params)

    def keeping(self, reasons: Mapping[str, str]) -> "ComputationGraph":
        """The graph with parameters that keep the model's own values, given by name with the reason."""
        if not reasons:
            return self
        specs = (
            replace(spec, reason=reasons[spec.name]) if spec.name in reasons else spec for spec in self.params
        )
        kept = replace(self, params=tuple(specs))
        # Reasons change nothing of who reads whom, nor of what encoders see.
        vars(kept).update({name: value for name, value in vars(self).items() if name in _WITHOUT_REASONS})
        return kept

    def to_dict(self) -> dict[str, Any]:
        """Plain values that ``json.dumps`` takes; ``from_dict`` reads them back."""
        values = asdict(self)
        for spec in values["params"]:
            spec["dtype"] = str(spec["dtype"]).removeprefix("torch.")
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ComputationGraph":
        """Rebuild a graph from what ``to_dict`` gave, also by way of JSON.

        Raises:
            ShapeError: If the values are not those of a graph.
        """
        try:
            return cls(
                nodes=tuple(Node(**_with_tuples(node)) for node in values["nodes"]),
                edges=tuple(Edge(*edge) for edge in values["edges"]),
                params=tuple(
                    ParamSpec(**_with_tuples(spec) | {"dtype": getattr(torch, spec["dtype"])})
                    for spec in values["params"]
                ),
                notes=tuple(values["notes"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ShapeError(
                f"these values are no computation graph ({error}); pass what ComputationGraph.to_dict returned"
            ) from error

    def fingerprint(self) -> str:
        """Digest, 32 hexadecimal digits, of everything but the notes: equal for equal architectures on equal inputs."""
        values = self.to_dict()
        del values["notes"]
        return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()

    def to_pyg(self) -> "Data":
        """The graph as torch-geometric data, a new one each time; see ``ghn.graph.features.to_pyg`` for its fields."""
        return copy.copy(self._data)

    @cached_property
    def _data(self) -> "Data":
        from ghn.graph.features import to_pyg

        with torch.inference_mode(False):  # it is kept, also for calls that record gradients
            return to_pyg(self)


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON turns tuples into lists; this turns them back, one level of mappings deep."""
    return {
        key: tuple(value)
        if isinstance(value, list)
        else _with_tuples(value)
        if isinstance(value, Mapping)
        else value
        for key, value in values.items()
    }
