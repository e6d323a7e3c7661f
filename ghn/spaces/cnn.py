"""Convolutional targets: timm's ResNet, ConvNeXt, MobileNet and RegNet families with varied sizes."""

import random

from ghn.spaces.architecture import Architecture


def sample_cnn(rng: random.Random) -> Architecture:
    """Draw one convolutional network, small enough to train in milliseconds a step."""
    return rng.choice((_resnet, _resnet, _convnext, _mobilenet))(rng)


def _resnet(rng: random.Random) -> Architecture:
    width = rng.choice((8, 12, 16, 20, 24))
    depths = [rng.choice((1, 1, 2)) for _ in range(4)]  # timm's ResNet has four stages, always
    return Architecture(
        spec=f"timm:{rng.choice(('resnet18', 'resnet18', 'resnext50_32x4d'))}",
        kwargs={"layers": depths, "channels": [width * 2**stage for stage in range(len(depths))]},
        family="resnet",
    )


def _convnext(rng: random.Random) -> Architecture:
    width = rng.choice((12, 16, 24, 32))
    depths = [rng.choice((1, 1, 2, 3)) for _ in range(rng.choice((2, 3)))]
    kwargs = {
        "patch_size": rng.choice((1, 2)),
        "depths": depths,
        "dims": [width * 2**s for s in range(len(depths))],
    }
    return Architecture(spec="timm:convnext_atto", kwargs=kwargs, family="convnext")


def _mobilenet(rng: random.Random) -> Architecture:
    return Architecture(
        spec=f"timm:{rng.choice(('mobilenetv2_035', 'mobilenetv2_050'))}", family="mobilenetv2"
    )
