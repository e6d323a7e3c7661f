"""Decode node embeddings into parameters."""

from ghn.decoder.decoder import Decoder, DecoderConfig

__all__ = ["Decoder", "DecoderConfig"]
