"""Heads of causal attention that can look at a previous token, and by what."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ghn.base.context import CHARACTERS, ModelTraits
from ghn.base.predicted import predicted_params
from ghn.base.sampling import sinusoid_frequencies
from ghn.graph.graph import ComputationGraph, ParamSpec
from ghn.graph.layout import Layout
from ghn.graph.ops import NORMS
from ghn.graph.structure import PASSED, Attention

SLOWEST_SINUSOID = 0.3
"""Radians per position below which sinusoids of a position table tell no neighbours apart."""


@dataclass(frozen=True)
class PreviousTokenAttention:
    """An attention whose heads can look at a previous token, and by what: one of three."""

    attention: Attention
    biases: tuple[ParamSpec, ParamSpec] | None = None
    """Biases of queries and keys that rotary embeddings turn: they are the same for all tokens."""
    table: ParamSpec | None = None
    """Table of tokens that share a vector, for rotary embeddings to turn what is made of it."""
    sinusoids: ParamSpec | None = None
    """Table of positions, none of them turned."""

    @property
    def param_names(self) -> set[str]:
        """Names of the parameters that have to be predicted for it."""
        maps = (self.attention.query.weight, self.attention.key.weight)
        return {spec.name for spec in self.biases or (*maps, self.table or self.sinusoids) if spec}


def find_previous_token_attentions(graph: ComputationGraph) -> list[PreviousTokenAttention]:
    """Find the attention whose heads can look back: causal, over tokens, with something that tells positions apart."""
    if not any(spec.role == "embedding" for spec in graph.params):
        return []
    streams = _Streams(graph)
    shared = not any(spec.role == "position" for spec in graph.params)  # where tokens share a vector
    names = {spec.name for spec in predicted_params(graph)}
    usable, claims = [], _Claims()
    for attention in graph.attentions:
        candidate = _candidate(attention, streams, shared)
        if candidate and candidate.param_names <= names and claims.add(candidate):
            usable.append(candidate)
    return usable


def previous_token_attentions(traits: ModelTraits) -> list[PreviousTokenAttention]:
    """What ``find_previous_token_attentions`` finds in a model, which is looked through once."""
    return traits.once(find_previous_token_attentions, find_previous_token_attentions)


def fast_sinusoids(table: ParamSpec, attention: Attention) -> Tensor:
    """Numbers of the sinusoids that a head has channels for, spread over those that tell neighbours apart."""
    # The last sinusoid of an odd width has no cosine.
    frequencies = sinusoid_frequencies(*table.shape[-2:])[: table.shape[-1] // 2]
    fast = (frequencies >= SLOWEST_SINUSOID).nonzero().flatten()
    count = min(attention.width // 2, len(fast))
    return fast[torch.linspace(0, len(fast) - 1, count).round().long()]


def _candidate(attention: Attention, streams: "_Streams", shared: bool) -> PreviousTokenAttention | None:
    """By what the heads of an attention could look back, if by anything."""
    sides = attention.query, attention.key
    inputs = {Layout.of(side.weight).columns for side in sides}
    if not attention.causal or any(side.weight.role != "linear" for side in sides):
        return None
    query, key = (streams.bias(side.weight) for side in sides)
    tables = streams.stream_params(attention.query.weight)
    tokens = max((spec for spec in tables if spec.role == "embedding"), key=_rows, default=None)
    positions = max((spec for spec in tables if spec.role == "position"), key=_rows, default=None)
    if attention.rotary and query and key:
        return PreviousTokenAttention(attention, biases=(query, key))
    if attention.rotary and shared and tokens and inputs == {tokens.shape[-1]}:
        return PreviousTokenAttention(attention, table=tokens)
    if not attention.rotary and tokens and positions and inputs == {positions.shape[-1]}:
        # Beside words the table starts too small for a head to find its sinusoids.
        fits = _rows(tokens) <= CHARACTERS and len(fast_sinusoids(positions, attention))
        return PreviousTokenAttention(attention, sinusoids=positions) if fits else None
    return None


class _Claims:
    """Which rows of queries and keys are spoken for: maps that several attentions share can only serve one."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], tuple[object, ...]] = {}

    def add(self, candidate: PreviousTokenAttention) -> bool:
        """Claim what an attention needs; False, and nothing is claimed, if another, or its own keys, have it."""
        attention = candidate.attention
        form = (attention.heads, attention.width, attention.rotary, candidate.table, candidate.sinusoids)
        sides = {"query": attention.query, "key": attention.key}
        claims = {(channels.weight.name, side): (*form, channels) for side, channels in sides.items()}
        if attention.query.weight == attention.key.weight:
            query, key = (side.rows(attention.heads, attention.width) for side in sides.values())
            if torch.isin(query, key).any():
                return False
        names = {name for name, _ in claims}
        others = {key: claim for key, claim in self._claims.items() if key[0] in names}
        if others and others != {key: claims.get(key) for key in others}:
            return False
        self._claims |= claims
        return True


class _Streams:
    """Looks around the linear maps of a graph."""

    def __init__(self, graph: ComputationGraph) -> None:
        self.graph = graph

    def bias(self, weight: ParamSpec) -> ParamSpec | None:
        """What the linear map of a weight adds to its outputs, one number each."""
        operands = {
            spec.name: spec for reader in self._readers(weight) for spec in self.graph.operands(reader)
        }
        biases = [spec for spec in operands.values() if spec.role == "bias"]
        return biases[0] if len(biases) == 1 and biases[0].numel == Layout.of(weight).rows else None

    def stream_params(self, weight: ParamSpec) -> list[ParamSpec]:
        """Parameters that are added up or looked up in the stream that a linear map reads.

        None at all if nothing normalizes the stream or what the map makes of it: nobody knows how large that is.
        """
        maps = self._readers(weight)
        sources = {source for reader in maps for source in self.graph.sources(reader)}
        before = {node for node in self._before(sources, frozenset({"shape"})) if self._kind(node) in NORMS}
        behind = any(self._kind(target) in NORMS for reader in maps for target in self.graph.readers(reader))
        if not before and not behind:
            return []
        along = self._before(before or sources, PASSED | {"add", "embedding"})
        specs = self.graph.params_by_node
        return [specs[node] for node in sorted(along) if node in specs]

    def _before(self, nodes: set[int], kinds: frozenset[str]) -> set[int]:
        """Nodes, and those from which only nodes of such kinds lead to them."""
        seen, frontier = set(nodes), list(nodes)
        while frontier:
            node = frontier.pop()
            if self._kind(node) in kinds:
                before = set(self.graph.sources(node)) - seen
                seen |= before
                frontier += before
        return seen

    def _kind(self, node: int) -> str:
        return self.graph.nodes[node].kind

    def _readers(self, weight: ParamSpec) -> Sequence[int]:
        return [] if weight.node is None else self.graph.readers(weight.node)


def _rows(table: ParamSpec) -> int:
    return Layout.of(table).rows
