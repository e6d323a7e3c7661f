"""Heads of causal attention that start by looking a few tokens back: what their queries and keys have beside noise.

A language model first learns what follows a token, then what follows two. For the second it needs a head that finds the
token before. That takes long to learn from random queries and keys, while what tells positions apart is known: waves of
a table that is added to the tokens, or rotary embeddings that turn queries and keys.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ghn.base.predicted import predicted_params
from ghn.base.sampling import shared_vector, wave_frequencies
from ghn.graph.graph import ComputationGraph, ParamSpec
from ghn.graph.layout import Layout
from ghn.graph.ops import NORMS
from ghn.graph.structure import PASSED, Attention, HeadChannels, Rotary, attentions

REACH = 4
"""Head ``h`` looks ``h % REACH`` tokens back."""

PEAK = 12.0
"""Score, before the softmax, of the token that a head looks at while the stream is tokens and positions alone."""

SLOWEST_WAVE = 0.3
"""Radians per position below which waves of a position table tell no neighbours apart."""

SLOWEST_TURN = 0.03
"""The same of rotary embeddings, which have fewer fast channels."""

ROTARY_BASE = 1e4
"""Of the frequencies of rotary embeddings. A graph doesn't say, and the fast ones hardly depend on it."""

CHARACTERS = 512
"""Tokens up to which a vocabulary is one of characters or bytes, whose order says more than they do. Of words a model
learns first what each alone says, and what attention and positions add is noise before they are trained: from there on,
both start smaller, and no head finds the waves of a table (scripts/LOG.md)."""


@dataclass(frozen=True)
class Looking:
    """An attention whose heads can look back, and by what: one of three."""

    attention: Attention
    biases: tuple[ParamSpec, ParamSpec] | None = None
    """Of queries and keys that rotary embeddings turn: they are the same for all tokens."""
    table: ParamSpec | None = None
    """Of tokens that share a vector, for rotary embeddings to turn what is made of it."""
    waves: ParamSpec | None = None
    """Table of positions, none of them turned."""

    @property
    def needed(self) -> set[str]:
        """Names of the parameters that have to be predicted for it."""
        maps = (self.attention.query.weight, self.attention.key.weight)
        return {spec.name for spec in self.biases or (*maps, self.table or self.waves) if spec}


@dataclass(frozen=True)
class Pattern:
    """A matrix of low rank that is added to a random one, in units of its spread."""

    left: Tensor
    """Shape ``(rows, rank)``."""
    right: Tensor | None = None
    """Shape ``(columns, rank)``; None is the vector that a table's rows share, which depends on the seed."""
    table: str = ""
    """Name of that table."""
    columns: int = 0
    """Entries of that vector."""

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal patterns."""
        sides = (None if side is None else side.numpy().tobytes() for side in (self.left, self.right))
        return (*sides, self.table, self.columns)

    def factors(self, seed: int) -> tuple[Tensor, Tensor]:
        """Left and right factor, on the CPU."""
        right = shared_vector(seed, self.table, self.columns)[:, None] if self.right is None else self.right
        return self.left, right


def sharing(table: ParamSpec) -> Pattern:
    """The vector that all rows of a table share."""
    columns = table.shape[-1]
    return Pattern(torch.ones(table.numel // columns, 1), table=table.name, columns=columns)


def looking_back(graph: ComputationGraph) -> list[Looking]:
    """Find the attention whose heads can look back: causal, over tokens, with something that tells positions apart."""
    if not any(spec.role == "embedding" for spec in graph.params):
        return []
    readers = Readers(graph)
    shared = not any(spec.role == "position" for spec in graph.params)  # where tokens share a vector
    predicted = {spec.name for spec in predicted_params(graph)}
    found, claims = [], _Claims()
    for attention in attentions(graph):
        sides = attention.query, attention.key
        inputs = {Layout.of(side.weight).columns for side in sides}
        if not attention.causal or any(side.weight.role != "linear" for side in sides):
            continue
        query, key = (readers.bias(side.weight) for side in sides)
        tables = readers.stream(attention.query.weight)
        tokens = max((spec for spec in tables if spec.role == "embedding"), key=_rows, default=None)
        waves = max((spec for spec in tables if spec.role == "position"), key=_rows, default=None)
        if attention.rotary and query and key:
            looking = Looking(attention, biases=(query, key))
        elif attention.rotary and shared and tokens and inputs == {tokens.shape[-1]}:
            looking = Looking(attention, table=tokens)
        elif not attention.rotary and tokens and waves and inputs == {waves.shape[-1]}:
            looking = Looking(attention, waves=waves)
        else:
            continue
        characters = tokens is not None and _rows(tokens) <= CHARACTERS
        visible = looking.waves is None or (characters and len(_fast_waves(looking.waves, attention)))
        if looking.needed <= predicted and visible and claims.add(looking):
            found.append(looking)
    return found


class _Claims:
    """Which rows of queries and keys are spoken for: maps that several attentions share can only serve one."""

    def __init__(self) -> None:
        self.made: dict[tuple[str, str], tuple[object, ...]] = {}

    def add(self, looking: Looking) -> bool:
        """Claim what an attention needs; False, and nothing is claimed, if another, or its own keys, have it."""
        attention = looking.attention
        form = (attention.heads, attention.width, attention.rotary, looking.table, looking.waves)
        sides = {"query": attention.query, "key": attention.key}
        wanted = {(channels.weight.name, side): (*form, channels) for side, channels in sides.items()}
        if attention.query.weight == attention.key.weight:
            query, key = (side.rows(attention.heads, attention.width) for side in sides.values())
            if torch.isin(query, key).any():
                return False
        names = {name for name, _ in wanted}
        others = {key: claim for key, claim in self.made.items() if key[0] in names}
        if others and others != {key: wanted.get(key) for key in others}:
            return False
        self.made |= wanted
        return True


class Readers:
    """Looks around the linear maps of a graph."""

    def __init__(self, graph: ComputationGraph) -> None:
        self.graph = graph
        self.specs = {spec.node: spec for spec in graph.params if spec.node is not None}
        self.sources: dict[int, list[int]] = defaultdict(list)
        self.targets: dict[int, list[int]] = defaultdict(list)
        for edge in graph.edges:
            self.sources[edge.target].append(edge.source)
            self.targets[edge.source].append(edge.target)

    def bias(self, weight: ParamSpec) -> ParamSpec | None:
        """What the linear map of a weight adds to its outputs, one number each."""
        beside = {source for reader in self._readers(weight) for source in self.sources[reader]}
        found = [self.specs[source] for source in beside if source in self.specs]
        biases = [spec for spec in found if spec.role == "bias"]
        return biases[0] if len(biases) == 1 and biases[0].numel == Layout.of(weight).rows else None

    def stream(self, weight: ParamSpec) -> list[ParamSpec]:
        """Parameters that are added up or looked up in the stream that a linear map reads.

        None at all if nothing normalizes the stream or what the map makes of it: nobody knows how large that is.
        """
        maps = self._readers(weight)
        read = {source for reader in maps for source in self.sources[reader]}
        before = {node for node in self._before(read, frozenset({"shape"})) if self._kind(node) in NORMS}
        behind = any(self._kind(target) in NORMS for reader in maps for target in self.targets[reader])
        if not before and not behind:
            return []
        along = self._before(before or read, PASSED | {"add", "embedding"})
        return [self.specs[node] for node in sorted(along) if node in self.specs]

    def _before(self, nodes: set[int], passed: frozenset[str]) -> set[int]:
        """Nodes, and those from which only nodes of such kinds lead to them."""
        seen, frontier = set(nodes), list(nodes)
        while frontier:
            node = frontier.pop()
            if self._kind(node) in passed:
                before = set(self.sources[node]) - seen
                seen |= before
                frontier += before
        return seen

    def _kind(self, node: int) -> str:
        return self.graph.nodes[node].kind

    def _readers(self, weight: ParamSpec) -> list[int]:
        return [] if weight.node is None else self.targets[weight.node]


def patterns(found: Iterable[Looking], spreads: Mapping[str, float]) -> dict[str, Pattern]:
    """What the weights of queries and keys have beside random numbers where heads look back, by name.

    Args:
        found: Attention whose heads look back.
        spreads: Of the random numbers, by name of the weight.
    """
    made: dict[str, Pattern] = {}
    for looking in found:
        if looking.biases:
            continue
        for channels, values in _queries_and_keys(looking):
            weight = channels.weight
            layout = Layout.of(weight)
            if weight.name not in made:
                left = torch.zeros(layout.rows, values.shape[-1])
                made[weight.name] = (
                    Pattern(left, table=looking.table.name, columns=layout.columns)
                    if looking.table
                    else Pattern(left, _selection(looking, layout.columns))
                )
            # In a normalized stream, half of the variance is what tokens share, or their positions.
            size = math.sqrt(2) / layout.columns if looking.table else 1.0
            made[weight.name].left[channels.rows(*values.shape[:2])] = values * (size / spreads[weight.name])
    kept: dict[tuple[object, ...], Pattern] = {}  # blocks of one shape share theirs
    return {name: kept.setdefault(pattern.key, pattern) for name, pattern in made.items()}


def constants(found: Iterable[Looking]) -> dict[str, Tensor]:
    """What the biases of queries and keys start at where heads look back by them, by name; shapes ``(rows,)``."""
    made: dict[str, Tensor] = {}
    for looking in found:
        if looking.biases is None:
            continue
        for bias, (channels, values) in zip(looking.biases, _queries_and_keys(looking), strict=True):
            vector = made.setdefault(bias.name, torch.zeros(bias.shape))
            vector[channels.rows(*values.shape[:2])] = values[..., 0]
    return made


def _queries_and_keys(looking: Looking) -> Iterator[tuple[HeadChannels, Tensor]]:
    """Rows of queries and of keys, and what they are along each column of a factor, ``(heads, width, rank)``."""
    attention = looking.attention
    back = torch.arange(attention.heads) % REACH
    if looking.waves:
        frequencies = wave_frequencies(*looking.waves.shape[-2:])[_fast_waves(looking.waves, attention)]
        query, key = _find_waves(attention, back, frequencies)
    else:
        assert attention.rotary is not None
        query, key = _turned(attention, back, attention.rotary)
    yield attention.query, query
    yield attention.key, key


def _find_waves(attention: Attention, back: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Keys are the waves of their position; queries are those of an earlier one, by a turn of each pair."""
    waves = len(frequencies)
    angles = back[:, None] * frequencies
    size = math.sqrt(PEAK * math.sqrt(attention.width) / waves)
    pair = torch.arange(waves)
    # (heads, sine or cosine of the head, waves, sine or cosine of the table, waves)
    query, key = torch.zeros(2, attention.heads, attention.width // 2, 2, 2, waves)
    query[:, pair, 0, 0, pair] = query[:, pair, 1, 1, pair] = size * angles.cos()
    query[:, pair, 0, 1, pair] = -size * angles.sin()
    query[:, pair, 1, 0, pair] = size * angles.sin()
    key[:, pair, 0, 0, pair] = key[:, pair, 1, 1, pair] = size
    rest = (0, 0, 0, attention.width % 2)
    query, key = (pad(side.reshape(attention.heads, -1, 2 * waves), rest) for side in (query, key))
    return query, key


def _turned(attention: Attention, back: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
    """Keys are one vector; queries are that vector as rotary embeddings turn it between them and an earlier key."""
    frequencies = ROTARY_BASE ** -(torch.arange(rotary.pairs) / rotary.pairs)
    fast = frequencies >= SLOWEST_TURN
    angles = back[:, None] * frequencies[fast]
    size = math.sqrt(PEAK * math.sqrt(attention.width) / len(angles.T))
    query, key = torch.zeros(2, attention.heads, attention.width, 1)
    query[:, rotary.first[fast], 0] = size * angles.cos()
    query[:, rotary.second[fast], 0] = -size * angles.sin()
    key[:, rotary.first[fast], 0] = size
    return query, key


def _fast_waves(table: ParamSpec, attention: Attention) -> Tensor:
    """Numbers of the waves that a head has channels for, spread over those that tell neighbours apart."""
    # The last wave of an odd width has no cosine.
    paired = wave_frequencies(*table.shape[-2:])[: table.shape[-1] // 2]
    fast = (paired >= SLOWEST_WAVE).nonzero().flatten()
    count = min(attention.width // 2, len(fast))
    return fast[torch.linspace(0, len(fast) - 1, count).round().long()]


def _selection(looking: Looking, columns: int) -> Tensor:
    """Columns of a table that hold the sines, then the cosines, of the waves, one-hot, ``(columns, rank)``."""
    assert looking.waves is not None
    sines = _fast_waves(looking.waves, looking.attention)
    chosen = torch.cat([sines, sines + (columns + 1) // 2])
    selection = torch.zeros(columns, len(chosen))
    selection[chosen, torch.arange(len(chosen))] = 1
    return selection


def _rows(table: ParamSpec) -> int:
    return Layout.of(table).rows
