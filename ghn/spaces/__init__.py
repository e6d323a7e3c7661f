"""Target architectures: samplers to meta-train on, and a fixed list to evaluate on."""

from ghn.spaces.architecture import SCALES, Architecture
from ghn.spaces.causal import sample_causal_lm
from ghn.spaces.cnn import sample_cnn
from ghn.spaces.held_out import held_out
from ghn.spaces.mlp import sample_mlp
from ghn.spaces.pyramid import sample_pyramid
from ghn.spaces.space import LARGEST, SMALLEST_IMAGE, ImageSpace, TargetSpace, TextSpace
from ghn.spaces.vit import sample_vit

__all__ = [
    "LARGEST",
    "SCALES",
    "SMALLEST_IMAGE",
    "Architecture",
    "ImageSpace",
    "TargetSpace",
    "TextSpace",
    "held_out",
    "sample_causal_lm",
    "sample_cnn",
    "sample_mlp",
    "sample_pyramid",
    "sample_vit",
]
