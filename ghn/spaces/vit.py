"""Vision transformer targets: timm's ViT with absolute or relative positions, in many sizes and variants."""

import random
from typing import Any

from ghn.spaces.architecture import Architecture


def sample_vit(rng: random.Random, image_size: int, scale: str = "small") -> Architecture:
    """Draw one vision transformer for square images.

    Args:
        rng: Random numbers.
        image_size: In pixels.
        scale: 'small', or 'full' for depth 3 to 9 and width 128 to 512.
    """
    full = scale == "full"
    heads = rng.choice((2, 3, 4, 6, 8) if full else (1, 2, 3, 4))
    per_head = rng.choice([size for size in (32, 48, 64, 96) if 128 <= heads * size <= 512] or [64])
    width = heads * (per_head if full else rng.choice((16, 24, 32)))
    depth = rng.randint(3, 9) if full else rng.randint(1, 6)
    kwargs: dict[str, Any] = {
        "img_size": image_size,
        "patch_size": max(1, image_size // rng.choice((4, 4, 8))),
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": rng.choice((2.0, 3.0, 4.0)),
        "qkv_bias": rng.random() < 0.8,
        "qk_norm": rng.random() < 0.15,
        "init_values": rng.choice((None, None, 1e-5, 0.1)),
    }
    activation = rng.choice(("gelu", "gelu", "relu", "silu"))
    if rng.random() < 0.25:
        kwargs |= {"rel_pos_type": rng.choice(("mlp", "bias")), "class_token": rng.random() < 0.3}
        kwargs["global_pool"] = "token" if kwargs["class_token"] else "avg"
        spec, family = "timm:vit_relpos_small_patch16_224", "vit_relpos"
    else:
        pooled = rng.random() < 0.4
        kwargs |= {"class_token": not pooled, "global_pool": "avg" if pooled else "token"}
        kwargs |= {"act_layer": activation}  # those with relative positions take no names of activations
        kwargs |= {"reg_tokens": rng.choice((0, 0, 0, 4)), "pre_norm": rng.random() < 0.1}
        spec, family = "timm:vit_tiny_patch16_224", "vit"
    return Architecture(spec=spec, kwargs=kwargs, family=family, depth=depth, width=width)
