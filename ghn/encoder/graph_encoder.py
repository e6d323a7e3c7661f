"""From graph data to one embedding per node."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import TransformerConv, global_mean_pool

from ghn.errors import ConfigError
from ghn.graph.features import EDGE_TYPES, FEATURES, plain_magnitude
from ghn.graph.ops import KINDS, ROLES

KINDS_OF_ENCODER = ("graph", "table")

MOST = 2**20
"""Of any size; a larger one is a mistake, or damage."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Kind and size of the encoder."""

    kind: str = "graph"
    """'graph', or 'table': one learned embedding for the first parameter of a target, one for the second, …, as in
    static hypernetworks, which know nothing of the target but the order of its layers."""
    hidden: int = 96
    """Width of a node embedding."""
    layers: int = 3
    """Rounds of message passing; each reaches 31 hops."""
    heads: int = 4
    """Attention heads per round; divides ``hidden``."""
    sizes: str = "circle"
    """How log sizes enter: 'circle' (cosine and sine, of constant norm) or 'plain'."""
    table: int = 1024
    """Embeddings in the table: the most parameter tensors of a target."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS_OF_ENCODER or self.sizes not in ("circle", "plain"):
            raise ConfigError(
                f"kind must be one of {KINDS_OF_ENCODER} and sizes 'circle' or 'plain'; "
                f"got {self.kind!r}, {self.sizes!r}"
            )
        sizes = (self.hidden, self.layers, self.heads, self.table)
        if min(sizes) < 1 or max(sizes) > MOST or self.hidden % self.heads:
            raise ConfigError(
                f"encoder sizes must be from 1 to {MOST} and heads must divide hidden; got hidden={self.hidden}, "
                f"layers={self.layers}, heads={self.heads}, table={self.table}"
            )


class EncoderLayer(nn.Module):
    """Attention along typed edges, a summary of the whole graph, and a two-layer network, each added to its input."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.attention = TransformerConv(hidden, hidden // heads, heads=heads, edge_dim=EDGE_TYPES)
        self.summary = nn.Linear(hidden, hidden)
        self.mix_norm = nn.LayerNorm(hidden)
        self.mix = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor | None) -> Tensor:
        normed = self.norm(x)
        summary = self.summary(global_mean_pool(normed, batch))
        x = x + self.attention(normed, edge_index, edge_attr) + (summary if batch is None else summary[batch])
        return x + self.mix(self.mix_norm(x))


class GraphEncoder(nn.Module):
    """Graph transformer over edges typed by direction and distance.

    Neither node numbers nor names enter, so renumbering the nodes permutes the embeddings. Memory is linear in the
    number of edges, which ``ghn.graph.features`` bounds.

    References:
        GHN-3, https://arxiv.org/abs/2303.04143 (attention biased by distance and direction);
        TransformerConv, https://arxiv.org/abs/2009.03509
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.plain = config.sizes == "plain"
        self.kind = nn.Embedding(len(KINDS), config.hidden)
        self.role = nn.Embedding(len(ROLES) + 1, config.hidden)
        self.features = nn.Linear(FEATURES // 2 if self.plain else FEATURES, config.hidden)
        self.layers = nn.ModuleList(EncoderLayer(config.hidden, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden)

    def forward(self, data: Data) -> Tensor:
        """Encode one graph or a ``torch_geometric.data.Batch`` of graphs.

        Returns:
            Embeddings, shape ``(nodes, hidden)``.
        """
        sizes = plain_magnitude(data.x) if self.plain else data.x
        x = self.kind(data.kind) + self.role(data.role) + self.features(sizes)
        edge_attr = torch.nn.functional.one_hot(data.edge_type, EDGE_TYPES).to(x.dtype)
        for layer in self.layers:
            x = layer(x, data.edge_index, edge_attr, data.batch)
        embeddings: Tensor = self.norm(x)
        return embeddings
