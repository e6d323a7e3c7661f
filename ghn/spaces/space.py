"""Spaces of architectures that a hypernetwork is trained on: sampled, and never written out."""

import random
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ghn.errors import ConfigError, did_you_mean
from ghn.spaces.architecture import SCALES, Architecture
from ghn.spaces.causal import sample_causal_lm
from ghn.spaces.cnn import sample_cnn
from ghn.spaces.mlp import sample_mlp
from ghn.spaces.pyramid import sample_pyramid
from ghn.spaces.vit import sample_vit

SMALLEST_IMAGE = 8
"""Pixels of a side: networks halve it three times."""

LARGEST: dict[str, tuple[int, int]] = {
    "resnet": (7, 768),
    "resnext": (7, 1024),
    "resnetv2": (7, 256),
    "convnext": (9, 192),
    "inverted": (21, 160),
    "densenet": (12, 336),
    "plain": (8, 384),
    "lenet": (12, 512),
    "starnet": (10, 160),
    "vit": (9, 512),
    "vit_relpos": (9, 512),
    "metaformer": (8, 192),
    "pyramid_vit": (9, 256),
    "mobilevit": (15, 80),
    "resmlp": (8, 384),
    "gmlp": (8, 384),
    "mixer": (5, 384),
    "gpt2": (9, 256),
    "llama": (9, 256),
}
"""Greatest depth and width of each family that is trained on, at any scale; held-out networks of these go beyond."""

SAMPLERS = {sample_cnn: 0.5, sample_vit: 0.1875, sample_pyramid: 0.1875, sample_mlp: 0.125}
"""Samplers of vision networks, and the share of the networks that each draws."""


@runtime_checkable
class TargetSpace(Protocol):
    """What meta-training samples networks from; a space of your own needs this one method."""

    def sample(self, rng: random.Random) -> Architecture:
        """Draw a network, by the random numbers alone.

        It is built with the task's ``arguments`` too, such as ``num_classes``.
        """


@dataclass(frozen=True, kw_only=True)
class ImageSpace:
    """Vision networks, of the kinds and shares in ``SAMPLERS``."""

    scale: str = "small"
    """One of ``SCALES``."""
    image_size: int = 32
    """Of square images, in pixels; ``SMALLEST_IMAGE`` at least."""

    def __post_init__(self) -> None:
        _check_scale(self.scale)
        if self.image_size < SMALLEST_IMAGE:
            raise ConfigError(
                f"image_size is {self.image_size}; networks halve images three times, so expected {SMALLEST_IMAGE} or "
                "more"
            )

    def sample(self, rng: random.Random) -> Architecture:
        """See ``TargetSpace.sample``."""
        (sample,) = rng.choices(list(SAMPLERS), list(SAMPLERS.values()))
        return sample(rng, self.image_size, self.scale)


@dataclass(frozen=True, kw_only=True)
class TextSpace:
    """Causal language models: GPT-2's and Llama's."""

    scale: str = "small"
    """One of ``SCALES``."""
    sequence_length: int = 128
    """Tokens of a text."""
    vocabulary: int = 384
    """Token ids of the text's tokenizer."""

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def sample(self, rng: random.Random) -> Architecture:
        """See ``TargetSpace.sample``."""
        return sample_causal_lm(rng, self.vocabulary, self.sequence_length, self.scale)


def _check_scale(scale: str) -> None:
    if scale not in SCALES:
        raise ConfigError(
            f"unknown scale {scale!r}; expected one of {', '.join(SCALES)}.{did_you_mean(scale, SCALES)}"
        )
