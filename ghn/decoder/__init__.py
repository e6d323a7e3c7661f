"""Decode node embeddings into parameters."""

from ghn.decoder.config import DecoderConfig
from ghn.decoder.decoder import Decoder

__all__ = ["Decoder", "DecoderConfig"]
