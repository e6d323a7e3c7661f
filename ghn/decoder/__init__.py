"""Decode node embeddings into parameters."""

from ghn.decoder.config import DecoderConfig
from ghn.decoder.decoder import MEMORY, Decoder, Order
from ghn.decoder.recipe import Recipe, recipes
from ghn.decoder.remembered import Draws, Remembered, draw_all

__all__ = [
    "MEMORY",
    "Decoder",
    "DecoderConfig",
    "Draws",
    "Order",
    "Recipe",
    "Remembered",
    "draw_all",
    "recipes",
]
