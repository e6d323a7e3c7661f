"""What graph encoders are measured against: an embedding for each layer, learned without looking at the graph."""

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from ghn.encoder.graph_encoder import EncoderConfig
from ghn.errors import ShapeError


class EmbeddingTable(nn.Module):
    """One learned embedding per parameter tensor, by its number in the target.

    References:
        HyperNetworks, https://arxiv.org/abs/1609.09106, section 3.1 (static hypernetworks)
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.entries = nn.Embedding(config.table, config.hidden)

    def forward(self, data: Data) -> Tensor:
        """Look up the parameters of one graph or a batch of graphs.

        Returns:
            Embeddings, shape ``(nodes, hidden)``; zero for nodes that are no parameter.

        Raises:
            ShapeError: If a graph has more parameters than the table has entries.
        """
        of_graph = torch.zeros_like(data.param_index) if data.batch is None else data.batch[data.param_index]
        firsts = torch.searchsorted(of_graph, of_graph)  # where each one's graph begins
        numbers = torch.arange(len(of_graph), device=of_graph.device) - firsts
        if len(numbers) and int(numbers.max()) >= self.entries.num_embeddings:
            raise ShapeError(
                f"the target has {int(numbers.max()) + 1} parameter tensors, the table of embeddings "
                f"{self.entries.num_embeddings}; use EncoderConfig(table=…) or kind='graph'"
            )
        embeddings = self.entries.weight.new_zeros(data.num_nodes, self.entries.embedding_dim)
        return embeddings.index_copy(0, data.param_index, self.entries(numbers))
