"""Targets that mix patches by matrices: timm's ResMLP, gMLP and MLP-Mixer."""

import random

from ghn.spaces.architecture import Architecture


def sample_mlp(rng: random.Random, image_size: int, scale: str = "small") -> Architecture:
    """Draw one network of patches and matrices for square images.

    Args:
        rng: Random numbers.
        image_size: In pixels.
        scale: One of ``SCALES``.
    """
    full = scale == "full"
    block = rng.choice(("resmlp", "gmlp", "mixer"))
    deepest = 5 if block == "mixer" else 8  # held-out Mixers have 6 and 8
    depth = rng.randint(3, deepest) if full else rng.randint(1, 5)
    width = rng.choice(range(96, 385, 16) if full else range(32, 129, 8))
    ratio = rng.choice((2.0, 4.0, 6.0) if block == "gmlp" else (2.0, 3.0, 4.0))
    kwargs = {
        "block": block,
        "img_size": image_size,
        "patch_size": max(1, image_size // rng.choice((4, 4, 8))),
        "num_blocks": depth,
        "embed_dim": width,
        # A Mixer's first is for the maps over tokens.
        "mlp_ratio": (rng.choice((0.5, 0.5, 1.0)), ratio) if block == "mixer" else ratio,
        "act_layer": rng.choice(("gelu", "gelu", "relu", "silu", "leaky_relu")),
    }
    return Architecture(
        spec="python:ghn.spaces.factories:mlp", kwargs=kwargs, family=block, depth=depth, width=width
    )
