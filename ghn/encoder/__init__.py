"""Encode graphs into node embeddings."""

from ghn.encoder.graph_encoder import EncoderConfig, GraphEncoder

__all__ = ["EncoderConfig", "GraphEncoder"]
