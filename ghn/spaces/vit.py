"""Vision transformer targets: timm's ViT and DeiT-III, with varied width, depth, heads, patches and pooling."""

import random

from ghn.spaces.architecture import Architecture


def sample_vit(rng: random.Random, image_size: int) -> Architecture:
    """Draw one vision transformer for square images of ``image_size`` pixels."""
    heads = rng.randint(1, 4)
    pooling = {"class_token": False, "global_pool": "avg"} if rng.random() < 0.4 else {}
    kwargs = {
        "img_size": image_size,
        "patch_size": image_size // rng.choice((4, 4, 8)),
        "embed_dim": heads * rng.choice((16, 24, 32)),
        "depth": rng.randint(1, 6),
        "num_heads": heads,
        "mlp_ratio": rng.choice((2.0, 3.0, 4.0)),
        **pooling,
    }
    spec = rng.choice(
        ("timm:vit_tiny_patch16_224", "timm:vit_tiny_patch16_224", "timm:deit3_small_patch16_224")
    )
    return Architecture(spec=spec, kwargs=kwargs, family="vit")
