"""Decode node embeddings into parameters."""

from ghn.decoder.cache import DecodeCache, PredictionCache
from ghn.decoder.config import DecoderConfig
from ghn.decoder.decoder import Decoder
from ghn.decoder.plan import LEARNED, GraphPlan, Learned, ParamPlan, plan_parameters
from ghn.decoder.prediction import Prediction
from ghn.decoder.slices import MEMORY, ParamSlice
from ghn.decoder.slot_decoder import SlotDecoder

__all__ = [
    "LEARNED",
    "MEMORY",
    "DecodeCache",
    "Decoder",
    "DecoderConfig",
    "GraphPlan",
    "Learned",
    "ParamPlan",
    "ParamSlice",
    "Prediction",
    "PredictionCache",
    "SlotDecoder",
    "build_decoder",
    "plan_parameters",
]


def build_decoder(embedding: int, config: DecoderConfig) -> Decoder | SlotDecoder:
    """The decoder that a configuration asks for."""
    return SlotDecoder(embedding, config) if config.slots else Decoder(embedding, config)
