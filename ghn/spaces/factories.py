"""Networks made of timm's blocks whose named models fix the arguments that a space varies.

Sampled architectures name these as ``python:ghn.spaces.factories:NAME``.
"""

from collections.abc import Sequence
from functools import partial

import timm.models.mlp_mixer as mlps
from timm.layers import ConvNormAct, SelectAdaptivePool2d, get_act_layer
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from torch import nn

from ghn.errors import ConfigError

TOKEN_MIXERS = {
    "mixer": mlps.MixerBlock,
    "resmlp": partial(mlps.ResBlock, norm_layer=mlps.Affine),
    "gmlp": mlps.SpatialGatingBlock,
}
"""Ways to mix tokens by matrices: MLP-Mixer, ResMLP and gMLP."""


def plain_cnn(
    widths: Sequence[int],
    depths: Sequence[int],
    kernel_size: int = 3,
    norm_layer: str = "batchnorm2d",
    act_layer: str = "relu",
    num_classes: int = 10,
) -> nn.Module:
    """Convolution, norm, activation, over and over without shortcuts, as in VGG; each stage but the first halves."""
    layers: list[nn.Module] = []
    channels = 3
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for number in range(depth):
            stride = 2 if stage and not number else 1
            layers.append(
                ConvNormAct(channels, width, kernel_size, stride, norm_layer=norm_layer, act_layer=act_layer)
            )
            channels = width
    return nn.Sequential(*layers, SelectAdaptivePool2d(flatten=True), nn.Linear(channels, num_classes))


def inverted_residuals(
    stages: Sequence[str],
    stem: int,
    features: int,
    norm_layer: str = "batchnorm2d",
    act_layer: str = "relu6",
    pooled_head: bool = False,
    num_classes: int = 10,
) -> nn.Module:
    """Inverted residuals, as in MobileNetV2 and EfficientNet; stages in timm's notation ('ir_r2_k3_s2_e6_c24').

    The last convolution reads the image, or with ``pooled_head`` the mean over it.
    """
    return (MobileNetV3 if pooled_head else EfficientNet)(
        decode_arch_def([[stage] for stage in stages]),
        num_classes=num_classes,
        num_features=features,
        stem_size=stem,
        round_chs_fn=partial(round_channels, multiplier=1.0),
        norm_layer=norm_layer,
        act_layer=get_act_layer(act_layer),
    )


def grouped_bottlenecks(
    layers: Sequence[int],
    channels: Sequence[int],
    group_size: int,
    excite: bool = False,
    act_layer: str = "relu",
    num_classes: int = 10,
) -> nn.Module:
    """Bottlenecks of grouped kernels, with a squeeze-and-excitation behind the kernel or none.

    Args:
        layers: Blocks of each stage.
        channels: Of each stage within its blocks, rounded to whole eights; between them there are four times as many.
        group_size: Channels of a group of the kernels, a divisor of eight.
        excite: Whether there are squeeze-and-excitations.
        act_layer: timm's name.
        num_classes: Of the data.
    """
    blocks = tuple(
        ByoBlockCfg(type="bottle", d=depth, c=4 * width, s=2 if stage else 1, gs=group_size, br=0.25)
        for stage, (depth, width) in enumerate(zip(layers, channels, strict=True))
    )
    config = ByoModelCfg(
        blocks=blocks,
        stem_chs=channels[0],
        stem_pool=None,
        act_layer=act_layer,
        attn_layer="se" if excite else None,
    )
    return ByobNet(config, num_classes=num_classes)


def mlp(
    block: str,
    img_size: int,
    patch_size: int,
    num_blocks: int,
    embed_dim: int,
    mlp_ratio: float | tuple[float, float] = 4.0,
    act_layer: str = "gelu",
    num_classes: int = 10,
) -> nn.Module:
    """Patches mixed by matrices.

    Raises:
        ConfigError: If ``block`` is none of ``TOKEN_MIXERS``.
    """
    if block not in TOKEN_MIXERS:
        raise ConfigError(f"block must be one of {', '.join(TOKEN_MIXERS)}; got {block!r}")
    return mlps.MlpMixer(
        num_classes=num_classes,
        img_size=img_size,
        patch_size=patch_size,
        num_blocks=num_blocks,
        embed_dim=embed_dim,
        mlp_ratio=mlp_ratio,
        block_layer=TOKEN_MIXERS[block],
        mlp_layer=mlps.GatedMlp if block == "gmlp" else mlps.Mlp,
        act_layer=get_act_layer(act_layer),
    )
