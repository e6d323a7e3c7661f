"""Decode node embeddings into parameters."""

from ghn.decoder.config import DecoderConfig
from ghn.decoder.decoder import MEMORY, Decoder, Order
from ghn.decoder.recipe import Recipe, recipes
from ghn.decoder.remembered import Remembered
from ghn.decoder.slot_decoder import SlotDecoder

__all__ = [
    "MEMORY",
    "Decoder",
    "DecoderConfig",
    "Order",
    "Recipe",
    "Remembered",
    "SlotDecoder",
    "build_decoder",
    "recipes",
]


def build_decoder(embedding: int, config: DecoderConfig) -> Decoder | SlotDecoder:
    """The decoder that a configuration asks for."""
    return SlotDecoder(embedding, config) if config.slots else Decoder(embedding, config)
