"""Two families of networks that are built, traced and tried in milliseconds."""

import random

from ghn.spaces import Architecture


class TinySpace:
    """Convolutional networks and transformers for images of 8 × 8 pixels."""

    def sample(self, rng: random.Random) -> Architecture:
        """Either, with four or eight channels a head."""
        width = rng.choice((4, 8))
        if rng.random() < 0.5:
            kwargs = {"layers": [1, 1, 1, 1], "channels": [width, 2 * width, 2 * width, 2 * width]}
            return Architecture(
                spec="timm:resnet18", kwargs=kwargs, family="resnet", depth=4, width=2 * width
            )
        kwargs = {
            "img_size": 8,
            "patch_size": 4,
            "embed_dim": 4 * width,
            "depth": rng.choice((1, 2)),
            "num_heads": 4,
        }
        return Architecture(
            spec="timm:vit_tiny_patch16_224",
            kwargs=kwargs,
            family="vit",
            depth=kwargs["depth"],
            width=4 * width,
        )
