"""Convolutional targets: timm's ResNet, ConvNeXt, MobileNet and RegNet families with varied sizes."""

import random

from ghn.spaces.architecture import Architecture


def sample_cnn(rng: random.Random) -> Architecture:
    """Draw one convolutional network, small enough to train in milliseconds a step."""
    return rng.choice((_resnet, _resnet, _convnext, _mobilenet))(rng)


def _resnet(rng: random.Random) -> Architecture:
    spec = rng.choice(("timm:resnet18", "timm:resnet18", "timm:resnext50_32x4d"))
    # ResNeXt's groups are a sixteenth of the width wide.
    width = rng.choice((8, 12, 16, 20, 24) if spec == "timm:resnet18" else (16, 32))
    depths = [rng.choice((1, 1, 2)) for _ in range(4)]  # timm's ResNet has four stages, always
    kwargs = {"layers": depths, "channels": [width * 2**stage for stage in range(4)]}
    return Architecture(spec=spec, kwargs=kwargs, family="resnet")


def _convnext(rng: random.Random) -> Architecture:
    width = rng.choice((12, 16, 24, 32))
    kwargs = {
        "patch_size": 1,  # images of 16 pixels leave no room for more
        "depths": [rng.choice((1, 1, 2)) for _ in range(4)],
        "dims": [width, width * 3 // 2, width * 2, width * 3],
    }
    return Architecture(spec="timm:convnext_atto", kwargs=kwargs, family="convnext")


def _mobilenet(rng: random.Random) -> Architecture:
    return Architecture(
        spec=f"timm:{rng.choice(('mobilenetv2_035', 'mobilenetv2_050'))}", family="mobilenetv2"
    )
