"""Encode graphs into node embeddings."""

from ghn.encoder.embedding_table import EmbeddingTable
from ghn.encoder.graph_encoder import EncoderConfig, GraphEncoder

__all__ = ["EmbeddingTable", "EncoderConfig", "GraphEncoder", "build_encoder"]


def build_encoder(config: EncoderConfig) -> GraphEncoder | EmbeddingTable:
    """The encoder that ``config.kind`` names."""
    return EmbeddingTable(config) if config.kind == "table" else GraphEncoder(config)
