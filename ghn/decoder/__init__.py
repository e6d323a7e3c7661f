"""Decode node embeddings into parameters."""

from ghn.decoder.config import DecoderConfig
from ghn.decoder.decoder import MEMORY, Decoder, Order, Remembered

__all__ = ["MEMORY", "Decoder", "DecoderConfig", "Order", "Remembered"]
