"""Networks made of timm's blocks whose named models fix the arguments that a space varies.

Sampled architectures name these as ``python:ghn.spaces.factories:NAME``.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import timm.models.metaformer as metaformers
import timm.models.mlp_mixer as mlps
import torch
from timm.layers import (
    ConvNormAct,
    GroupNorm1,
    LayerNorm2d,
    PatchEmbed,
    RelPosBias,
    SelectAdaptivePool2d,
    get_act_layer,
    get_norm_layer,
    trunc_normal_,
)
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.swin_transformer import PatchMerging
from timm.models.vision_transformer import Block
from timm.models.vision_transformer_relpos import RelPosBlock
from torch import Tensor, nn

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
    stem_kernel: int | None = None,
    norm_layer: str = "batchnorm2d",
    act_layer: str = "relu",
    num_classes: int = 10,
) -> nn.Module:
    """Convolution, norm, activation, over and over without shortcuts, as in VGG; each stage but the first halves.

    The first kernel, which reads the image, may have a size of its own.
    """
    layers: list[nn.Module] = []
    channels = 3
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for number in range(depth):
            stride = 2 if stage and not number else 1
            kernel = kernel_size if layers or stem_kernel is None else stem_kernel
            layers.append(
                ConvNormAct(channels, width, kernel, stride, norm_layer=norm_layer, act_layer=act_layer)
            )
            channels = width
    return nn.Sequential(*layers, SelectAdaptivePool2d(flatten=True), nn.Linear(channels, num_classes))


def lenet(
    widths: Sequence[int],
    depths: Sequence[int],
    image_size: int,
    hidden: Sequence[int] = (),
    kernel_size: int = 3,
    padded: bool = True,
    downsampling: str = "max",
    norm_layer: str = "",
    act_layer: str = "relu",
    num_classes: int = 10,
) -> nn.Module:
    """Stages of convolutions that each halve the image, and linear maps of all that is left, as in LeNet and AlexNet.

    Args:
        widths: Channels of each stage.
        depths: Convolutions of each stage.
        image_size: Side of the images, in pixels.
        hidden: Widths of the linear maps before the classifier.
        kernel_size: Of all convolutions.
        padded: Whether convolutions keep the size.
        downsampling: How a stage ends: by pooling ('max', 'avg'), or by the stride of its last convolution ('stride').
        norm_layer: timm's name; empty for none.
        act_layer: timm's name.
        num_classes: Of the data.
    """
    activation = get_act_layer(act_layer)
    layers: list[nn.Module] = []
    channels, side = 3, image_size
    for width, depth in zip(widths, depths, strict=True):
        for number in range(depth):
            stride = 2 if downsampling == "stride" and number == depth - 1 else 1
            padding = kernel_size // 2 if padded else 0
            layers.append(nn.Conv2d(channels, width, kernel_size, stride, padding))
            if norm_layer:
                layers.append(get_norm_layer(norm_layer)(width))
            layers.append(activation())
            channels, side = width, (side + 2 * padding - kernel_size) // stride + 1
        if downsampling != "stride":
            layers.append(nn.MaxPool2d(2) if downsampling == "max" else nn.AvgPool2d(2))
            side //= 2
    sizes = [channels * side**2, *hidden]
    layers.append(nn.Flatten())
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], num_classes))


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


def metaformer(
    depths: Sequence[int],
    dims: Sequence[int],
    token_mixers: Sequence[str],
    norm_layer: str = "layernorm",
    act_layer: str = "star_relu",
    mlp_bias: bool = False,
    norm_between: bool = True,
    mlp_head: bool = True,
    layer_scale: float | None = None,
    num_classes: int = 10,
) -> nn.Module:
    """timm's MetaFormer, with a token mixer for each stage (https://arxiv.org/abs/2210.13452).

    Args:
        depths: Blocks of each stage.
        dims: Channels of each.
        token_mixers: Of each, 'sepconv' or 'attention', whose heads have 16 channels each.
        norm_layer: 'layernorm' without biases, or 'groupnorm1'; attention always has the former.
        act_layer: timm's name, or 'star_relu', whose scale and bias are learned.
        mlp_bias: Whether the maps of channels have biases.
        norm_between: Whether the stem and what halves the image have norms.
        mlp_head: Whether the classifier has a hidden layer.
        layer_scale: What branches begin to be multiplied by, if they are.
        num_classes: Of the data.
    """
    attention = [mixer == "attention" for mixer in token_mixers]
    norm = metaformers.LayerNorm2dNoBias if norm_layer == "layernorm" else GroupNorm1
    return metaformers.MetaFormer(
        depths=tuple(depths),
        dims=tuple(dims),
        token_mixers=[metaformers.Attention if attends else metaformers.SepConv for attends in attention],
        mlp_act=metaformers.StarReLU if act_layer == "star_relu" else get_act_layer(act_layer),
        mlp_bias=mlp_bias,
        layer_scale_init_values=layer_scale,
        res_scale_init_values=None,
        downsample_norm=metaformers.LayerNorm2dNoBias if norm_between else None,
        norm_layers=[metaformers.LayerNormNoBias if attends else norm for attends in attention],
        output_norm=LayerNorm2d,
        use_mlp_head=mlp_head,
        num_classes=num_classes,
        **({"head_dim": 16} if any(attention) else {}),
    )


def mobilevit(
    channels: Sequence[int],
    depths: Sequence[int],
    transformer_dims: Sequence[int],
    transformer_depths: Sequence[int],
    features: int,
    bottle_ratio: float = 2.0,
    act_layer: str = "silu",
    num_classes: int = 10,
) -> nn.Module:
    """timm's MobileViT (https://arxiv.org/abs/2110.02178): inverted residuals, with transformers in the last stages.

    Args:
        channels: Of each stage.
        depths: Inverted residuals of each; all stages but the first halve the image.
        transformer_dims: Channels of the transformer of each of the last stages, multiples of four.
        transformer_depths: Blocks of each.
        features: Channels that the classifier reads.
        bottle_ratio: Channels within an inverted residual for each that it reads.
        act_layer: timm's name.
        num_classes: Of the data.
    """
    plain = len(channels) - len(transformer_dims)
    linear = {"bottle_in": True, "linear_out": True}
    blocks: list[tuple[ByoBlockCfg, ...]] = []
    for stage, (width, depth) in enumerate(zip(channels, depths, strict=True)):
        stride = 2 if stage else 1
        block = ByoBlockCfg("bottle", d=depth, c=width, s=stride, gs=1, br=bottle_ratio, block_kwargs=linear)
        blocks.append((block,))
    for stage, (dim, depth) in enumerate(zip(transformer_dims, transformer_depths, strict=True), plain):
        shape = {"transformer_dim": dim, "transformer_depth": depth, "patch_size": 2}
        blocks[stage] += (ByoBlockCfg("mobilevit", d=1, c=channels[stage], s=1, block_kwargs=shape),)
    config = ByoModelCfg(
        blocks=tuple(blocks),
        stem_chs=channels[0],
        stem_pool="",
        downsample="",
        act_layer=act_layer,
        num_features=features,
    )
    return ByobNet(config, num_classes=num_classes)


class PyramidViT(nn.Module):
    """ViT blocks in stages; between two, each two by two neighbouring tokens become one of twice the width.

    Args:
        img_size: In pixels.
        patch_size: Of the first tokens, in pixels.
        dims: Channels of each stage.
        depths: Blocks of each.
        num_heads: Of each.
        mlp_ratio: Hidden channels of a block for each of its channels.
        relative: Relative positions in every block, instead of absolute ones at the start.
        act_layer: timm's name.
        init_values: What branches begin to be multiplied by, if they are.
        num_classes: Of the data.

    References:
        Stages: PVT, https://arxiv.org/abs/2102.12122; merging: Swin, https://arxiv.org/abs/2103.14030
    """

    def __init__(
        self,
        img_size: int,
        patch_size: int,
        dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        mlp_ratio: float = 4.0,
        relative: bool = False,
        act_layer: str = "gelu",
        init_values: float | None = None,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        side = img_size // patch_size
        self.embed = PatchEmbed(img_size, patch_size, embed_dim=dims[0], norm_layer=nn.LayerNorm)
        self.pos_embed = None if relative else nn.Parameter(torch.zeros(1, side * side, dims[0]))
        if self.pos_embed is not None:
            trunc_normal_(self.pos_embed, std=0.02)
        shared = {
            "mlp_ratio": mlp_ratio,
            "qkv_bias": True,
            "init_values": init_values,
            "act_layer": get_act_layer(act_layer),
            "norm_layer": nn.LayerNorm,
        }
        self.merges, self.stages = nn.ModuleList(), nn.ModuleList()
        for stage, (width, depth, heads) in enumerate(zip(dims, depths, num_heads, strict=True)):
            self.merges.append(PatchMerging(dims[stage - 1], width) if stage else nn.Identity())
            side = -(-side // 2) if stage else side  # the merge fills up what is odd
            block: type[nn.Module] | partial[nn.Module] = Block
            if relative:
                block = partial(RelPosBlock, rel_pos_cls=partial(RelPosBias, window_size=(side, side)))
            self.stages.append(nn.Sequential(*(block(width, heads, **shared) for _ in range(depth))))
        self.norm = nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images of shape (batch, 3, height, width) to logits of shape (batch, classes)."""
        tokens = self.embed(images)
        if self.pos_embed is not None:
            tokens = tokens + self.pos_embed
        for number, (merge, blocks) in enumerate(zip(self.merges, self.stages, strict=True)):
            if number:
                batch, count, width = tokens.shape
                side = round(count**0.5)
                tokens = merge(tokens.reshape(batch, side, side, width)).flatten(1, 2)
            tokens = blocks(tokens)
        return self.head(self.norm(tokens).mean(1))
