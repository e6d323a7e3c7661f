"""Samplers of target architectures to meta-train on."""

from ghn.spaces.architecture import Architecture
from ghn.spaces.cnn import sample_cnn
from ghn.spaces.gpt2 import sample_gpt2
from ghn.spaces.vit import sample_vit

__all__ = ["Architecture", "sample_cnn", "sample_gpt2", "sample_vit"]
