"""Targets whose images shrink between stages of transformer blocks: MetaFormers, MobileViTs, ViTs with patch merging.

PoolFormer, whose tokens are mixed by pooling, and Swin, whose attention stays within windows, are held out.
"""

import random
from typing import Any

from ghn.spaces.architecture import Architecture, stages


def sample_pyramid(rng: random.Random, image_size: int, scale: str = "small") -> Architecture:
    """Draw one network for square images.

    Args:
        rng: Random numbers.
        image_size: In pixels.
        scale: One of ``SCALES``.
    """
    kind = rng.choice((_metaformer, _pyramid_vit, _mobilevit))
    return kind(rng, image_size, scale == "full")


def _metaformer(rng: random.Random, image_size: int, full: bool) -> Architecture:
    width = rng.choice((32, 48) if full else (16, 16, 32))
    total = rng.randint(4, 8 if full else 6)
    attentions = rng.choice((0, 0, 1, 2))
    kwargs = {
        "depths": stages(total, 4, rng),
        "dims": [width, width * 2, width * 3, width * 4],
        "token_mixers": ["sepconv"] * (4 - attentions) + ["attention"] * attentions,
        "norm_layer": rng.choice(("layernorm", "groupnorm1")),
        "act_layer": rng.choice(("star_relu", "gelu", "gelu", "relu", "silu")),
        "mlp_bias": rng.random() < 0.5,
        "norm_between": rng.random() < 0.5,
        "mlp_head": rng.random() < 0.5,
        "layer_scale": rng.choice((None, None, 1e-5, 0.1)),
    }
    spec = "python:ghn.spaces.factories:metaformer"
    return Architecture(spec=spec, kwargs=kwargs, family="metaformer", depth=total, width=width * 4)


def _pyramid_vit(rng: random.Random, image_size: int, full: bool) -> Architecture:
    per_head = rng.choice((16, 32) if full else (16, 24))
    heads = rng.choice((1, 2))
    count = rng.choice((2, 3, 3))
    total = rng.randint(count, 9 if full else 6)
    width = per_head * heads
    kwargs: dict[str, Any] = {
        "img_size": image_size,
        "patch_size": max(1, image_size // 8),  # sides of 8, 4 and 2 tokens
        "dims": [width * 2**stage for stage in range(count)],
        "num_heads": [heads * 2**stage for stage in range(count)],
        "depths": stages(total, count, rng),
        "mlp_ratio": rng.choice((2.0, 3.0, 4.0)),
        "relative": rng.random() < 0.5,
        "act_layer": rng.choice(("gelu", "gelu", "relu", "silu")),
        "init_values": rng.choice((None, None, 1e-5, 0.1)),
    }
    spec = "python:ghn.spaces.factories:PyramidViT"
    return Architecture(
        spec=spec, kwargs=kwargs, family="pyramid_vit", depth=total, width=width * 2 ** (count - 1)
    )


def _mobilevit(rng: random.Random, image_size: int, full: bool) -> Architecture:
    width = rng.choice((8, 12, 16) if full else (8, 12, 14))
    per_head = rng.choice((12, 16, 20) if full else (8, 12, 16))
    step = rng.choice((0, 4))
    transformers = [rng.choice((1, 1, 2, 3) if full else (1, 1, 2)) for _ in range(3)]
    residuals = [1, rng.randint(1, 2), 1, 1, 1]
    kwargs = {
        "channels": [width, width * 2, width * 3, width * 4, width * 5],
        "depths": residuals,
        "transformer_dims": [4 * (per_head + step * stage) for stage in range(3)],
        "transformer_depths": transformers,
        "features": width * 5 * rng.choice((2, 4)),
        "bottle_ratio": rng.choice((2.0, 2.0, 4.0)),
        "act_layer": rng.choice(("silu", "silu", "gelu", "relu")),
    }
    depth = sum(residuals) + sum(transformers)
    spec = "python:ghn.spaces.factories:mobilevit"
    return Architecture(spec=spec, kwargs=kwargs, family="mobilevit", depth=depth, width=width * 5)
