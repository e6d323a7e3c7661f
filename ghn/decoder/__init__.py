"""Decode node embeddings into parameters."""

from ghn.decoder.config import DecoderConfig
from ghn.decoder.decoder import MEMORY, Decoder, Order
from ghn.decoder.plan import ParamPlan, plan_parameters
from ghn.decoder.remembered import Remembered
from ghn.decoder.slot_decoder import SlotDecoder

__all__ = [
    "MEMORY",
    "Decoder",
    "DecoderConfig",
    "Order",
    "ParamPlan",
    "Remembered",
    "SlotDecoder",
    "build_decoder",
    "plan_parameters",
]


def build_decoder(embedding: int, config: DecoderConfig) -> Decoder | SlotDecoder:
    """The decoder that a configuration asks for."""
    return SlotDecoder(embedding, config) if config.slots else Decoder(embedding, config)
