"""All the networks that a hypernetwork meets in training, as a numbered list that is never written out."""

import random
from dataclasses import dataclass

from ghn.errors import ConfigError, did_you_mean
from ghn.spaces.architecture import SCALES, Architecture
from ghn.spaces.cnn import sample_cnn
from ghn.spaces.gpt2 import sample_gpt2
from ghn.spaces.mlp import sample_mlp
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
    "vit": (9, 512),
    "vit_relpos": (9, 512),
    "resmlp": (8, 384),
    "gmlp": (8, 384),
    "gpt2": (9, 256),
    "llama": (9, 256),
}
"""Greatest depth and width of each family that is trained on, at any scale; held-out networks of these go beyond."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """A seeded space of architectures for one kind of data."""

    scale: str = "small"
    """One of ``SCALES``."""
    image_size: int = 32
    """Of square images, in pixels; ``SMALLEST_IMAGE`` at least."""
    sequence_length: int = 128
    """Tokens of a text."""
    vocabulary: int = 384
    """Token ids of the text's tokenizer."""

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ConfigError(
                f"unknown scale {self.scale!r}; expected one of {', '.join(SCALES)}.{did_you_mean(self.scale, SCALES)}"
            )
        if self.image_size < SMALLEST_IMAGE:
            raise ConfigError(
                f"image_size is {self.image_size}; networks halve images three times, so expected {SMALLEST_IMAGE} or "
                "more"
            )

    def draw(self, task: str, number: int, seed: int = 0) -> Architecture:
        """Network ``number`` of a task ('images' or 'text') under a seed; always the same.

        Half of the vision networks are convolutional, three in eight are transformers.
        """
        rng = random.Random(f"{task}/{seed}/{number}")
        if task == "text":
            return sample_gpt2(rng, self.vocabulary, self.sequence_length, self.scale)
        kind = rng.random()
        sample = sample_cnn if kind < 0.5 else sample_vit if kind < 0.875 else sample_mlp
        return sample(rng, self.image_size, self.scale)
