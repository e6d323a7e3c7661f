"""Convolutional targets of varied sizes, norms and activations: residual, dense, inverted, star and plain networks, and
those that people write by hand.

RegNets, MobileNetV3 and GhostNet are not drawn: they are held out.
"""

import random
from functools import partial

from ghn.spaces.architecture import Architecture, stages

ACTIVATIONS = ("relu", "relu", "gelu", "silu", "leaky_relu")
NORMS = ("batchnorm2d", "batchnorm2d", "groupnorm1", "layernorm2d")
"""timm's names; ``groupnorm1`` is one group, as LayerNorm over all of an image."""


def sample_cnn(rng: random.Random, image_size: int, scale: str = "small") -> Architecture:
    """Draw one convolutional network for square images.

    Args:
        rng: Random numbers.
        image_size: In pixels, 8 at least: what can't be padded is drawn so that a pixel is left at the end.
        scale: One of ``SCALES``.
    """
    convnext, densenet, lenet = (
        partial(kind, image_size=image_size) for kind in (_convnext, _densenet, _lenet)
    )
    residual = (_resnet, _resnet, _resnext, _preactivated, convnext, _inverted)
    kinds = (*residual, densenet, _plain, _starnet, lenet)
    return rng.choice(kinds)(rng, scale == "full")


def _resnet(rng: random.Random, full: bool) -> Architecture:
    spec = rng.choice(("timm:resnet18", "timm:resnet18", "timm:seresnet18", "timm:resnet26"))
    expansion = 4 if spec == "timm:resnet26" else 1
    width = rng.choice(range(16, 49, 4) if full else range(8, 25, 4)) // (2 if expansion > 1 else 1)
    kwargs = _residual(rng, width, full)
    kwargs["norm_layer"] = rng.choice(NORMS[:3])
    widest = width * 8
    if rng.random() < 0.5:  # as standard ones, whose first block adds to the stem's 64 channels as they are
        step = rng.choice((8, 16, 32) if full else (8, 16))
        kwargs["channels"] = [(64 + step * stage) // expansion for stage in range(4)]
        widest = (64 + step * 3) // expansion
    return _finish("resnet", spec, kwargs | _deep_stem(rng), widest * expansion)


def _resnext(rng: random.Random, full: bool) -> Architecture:
    groups = rng.choice((4, 8))
    width = groups * rng.choice((2, 3, 4) if full else (1, 2, 3))
    # Beside blocks that are a quarter as wide within as between, wider ones, as ResNeXt-101 32x8d and 32x16d have.
    ratio = min(rng.choice((1, 1, 2, 4)), width // 4)
    kwargs = _residual(rng, width // ratio, full)
    # A bottleneck has width // 64 * base_width channels per group, so that groups stay whole at every width.
    grouped = {"cardinality": groups, "base_width": 64 * ratio // groups}
    if rng.random() < 0.25:  # the squeeze between the convolutions of a block, not behind them
        inner = {key: kwargs[key] for key in ("layers", "act_layer")}
        inner |= {"channels": [width * 2**stage for stage in range(4)]}
        inner |= {"group_size": rng.choice((4, 8)), "excite": rng.random() < 0.7}
        return _finish("resnext", "python:ghn.spaces.factories:grouped_bottlenecks", inner, width * 32)
    kwargs |= grouped | _deep_stem(rng)
    return _finish("resnext", "timm:resnext50_32x4d", kwargs, width // ratio * 32)


def _deep_stem(rng: random.Random) -> dict[str, object]:
    """Three small kernels that read the image instead of a large one, as in ResNet-D; mostly none."""
    return {"stem_type": "deep", "stem_width": rng.choice((16, 32))} if rng.random() < 0.2 else {}


def _preactivated(rng: random.Random, full: bool) -> Architecture:
    width = 32 * rng.choice((1, 2) if full else (1,))
    total = rng.randint(4, 7)
    kwargs = {
        "layers": stages(total, 4, rng),
        "channels": [width, width * 2, width * 3, width * 4],
        "stem_chs": rng.choice((16, 32)) if not full else 32,
        "norm_layer": rng.choice(("batchnorm2d", "groupnorm1")),
        "act_layer": rng.choice(ACTIVATIONS),
    }
    return Architecture(
        spec="timm:resnetv2_50", kwargs=kwargs, family="resnetv2", depth=total, width=width * 4
    )


def _convnext(rng: random.Random, full: bool, image_size: int) -> Architecture:
    width = rng.choice((24, 32, 40, 48, 64) if full else (12, 16, 24, 32))
    total = rng.randint(4, 9 if full else 7)
    kwargs = {
        "patch_size": min(rng.choice((1, 2)) if full else 1, 2 if image_size >= 32 else 1),
        "depths": stages(total, 4, rng),
        "dims": [width, width * 3 // 2, width * 2, width * 3],
        "kernel_sizes": rng.choice((3, 5, 7)),
        "act_layer": rng.choice(("gelu", "gelu", "relu", "silu")),
        "ls_init_value": rng.choice((1e-6, None)),
    }
    return Architecture(
        spec="timm:convnext_atto", kwargs=kwargs, family="convnext", depth=total, width=width * 3
    )


def _inverted(rng: random.Random, full: bool) -> Architecture:
    width = rng.choice((16, 24, 32) if full else (8, 12, 16))
    excite = rng.choice(("", "", "_se0.25"))
    count = rng.randint(3, 7)
    kernels = [rng.choice((3, 3, 5)) for _ in range(count)]
    repeats = [
        rng.choice((1, 1, 2)) if count < 6 or not full else rng.choice((1, 2, 3)) for _ in range(count)
    ]
    expansions = [rng.choice((2, 3, 4, 6)) for _ in range(count)]
    # Deep ones halve the image no more often than shallow ones, and widen it by less at a time.
    halved = {*rng.sample(range(1, count), min(count - 1, 4))}
    channels = [width * (stage + 1) if count < 6 else width * (stage + 2) // 2 for stage in range(count)]
    blocks = [
        f"ir_r{repeats[stage]}_k{kernels[stage]}_s{2 if stage in halved else 1}_e{expansions[stage]}"
        f"_c{channels[stage]}{excite}"
        for stage in range(count)
    ]
    if rng.random() < 0.5:  # as MobileNetV2 and EfficientNet begin
        blocks[0] = f"ds_r1_k3_s1_c{channels[0]}{excite}"
    variant = rng.random()
    if variant < 0.2:  # fused at first, as in EfficientNetV2
        fused = rng.randint(1, count)
        plain = (block.removesuffix("_se0.25").replace("_k5", "_k3") for block in blocks[:fused])
        blocks[:fused] = [block.replace("ir_", "er_") for block in plain]
    elif variant < 0.35:  # another kernel before the expansion, as in MobileNetV4
        blocks = [block.replace("ir_", f"uir_a{rng.choice((3, 5))}_") for block in blocks]
    kwargs: dict[str, object] = {
        "stem": width if rng.random() < 0.5 else 2 * width,
        "features": channels[-1] * rng.choice((2, 4)),
        "norm_layer": rng.choice(NORMS[:3]),
        "act_layer": rng.choice(("relu6", "silu", "gelu", "hard_swish")),
        "pooled_head": rng.random() < 0.25,  # as in HardCoReNAS, FBNetV3 and MobileNetV4
    }
    if kwargs["pooled_head"]:  # behind a convolution of its own
        blocks.append(f"cn_r1_k1_s1_c{3 * channels[-1]}")
    kwargs["stages"] = blocks
    spec = "python:ghn.spaces.factories:inverted_residuals"
    return Architecture(spec=spec, kwargs=kwargs, family="inverted", depth=sum(repeats), width=channels[-1])


def _densenet(rng: random.Random, full: bool, image_size: int) -> Architecture:
    growth = rng.choice((12, 16, 24) if full else (6, 8, 12))
    total = rng.randint(4, 12 if full else 9)
    count = 4 if full and rng.random() < 0.5 else 3
    # The stem leaves a quarter of the image's side, and each transition halves what is left.
    blocks = stages(total, min(count, (image_size // 4).bit_length()), rng)
    kwargs = {"growth_rate": growth, "block_config": blocks, "act_layer": rng.choice(ACTIVATIONS)}
    width = growth * (2 + sum(blocks))  # an upper bound: transitions halve it
    return Architecture(
        spec="timm:densenet121", kwargs=kwargs, family="densenet", depth=sum(blocks), width=width
    )


def _plain(rng: random.Random, full: bool) -> Architecture:
    width = rng.choice((16, 24, 32, 48) if full else (8, 12, 16, 24, 32))
    total = rng.randint(3, 8 if full else 6)
    count = rng.randint(2, min(4, total))
    kwargs = {
        "widths": [width * 2**stage for stage in range(count)],
        "depths": stages(total, count, rng),
        "stem_kernel": rng.choice((3, 3, 5)),
        # GroupNorm has 32 groups.
        "norm_layer": rng.choice(NORMS if width % 32 else (*NORMS, "groupnorm", "groupnorm")),
        "act_layer": rng.choice(ACTIVATIONS),
    }
    spec = "python:ghn.spaces.factories:plain_cnn"
    return Architecture(spec=spec, kwargs=kwargs, family="plain", depth=total, width=width * 2 ** (count - 1))


def _lenet(rng: random.Random, full: bool, image_size: int) -> Architecture:
    """Networks as people write them by hand: mostly without norms, and with linear maps of the flattened image."""
    width = rng.choice((16, 24, 32, 48, 64) if full else (6, 8, 12, 16, 24, 32))
    most = (image_size // 2).bit_length() - 1  # two pixels a side are left at least
    count = min(most, rng.choice((2, 2, 3, 3, 4) if full else (2, 2, 3, 3)))
    padded = rng.random() < 0.8 or image_size < 16
    if not padded:  # each convolution takes two pixels
        count = min(count, 2 if image_size < 32 else 3)
    depths = [rng.choice((1, 1, 2, 3) if full else (1, 1, 2)) if padded else 1] * count
    widening = rng.choice((1, 1.5, 2, 2))
    widths = [int(width * widening**stage) for stage in range(count)]
    kernel = rng.choice((3, 3, 5)) if padded and image_size > 8 else 3
    hidden = rng.choice(range(64, 513, 32) if full else range(32, 161, 16))
    kwargs = {
        "image_size": image_size,
        "widths": widths,
        "depths": depths,
        "hidden": rng.choice(([], [hidden], [hidden], [hidden, hidden // 2])),
        "kernel_size": kernel,
        "padded": padded,
        "downsampling": rng.choice(("max", "max", "avg", "stride")) if padded else "max",
        "norm_layer": rng.choice(("", "", "batchnorm2d")),
        "act_layer": rng.choice((*ACTIVATIONS, "relu", "elu", "tanh")),
    }
    return Architecture(
        spec="python:ghn.spaces.factories:lenet",
        kwargs=kwargs,
        family="lenet",
        depth=sum(depths),
        width=max(widths),
    )


def _starnet(rng: random.Random, full: bool) -> Architecture:
    width = rng.choice((12, 16, 20) if full else (8, 10, 12, 14, 16))
    total = rng.randint(4, 10 if full else 8)
    kwargs = {
        "base_dim": width,
        "depths": stages(total, 4, rng),
        "mlp_ratio": rng.choice((3, 4, 4)),
    }
    return Architecture(spec="timm:starnet_s1", kwargs=kwargs, family="starnet", depth=total, width=width * 8)


def _residual(rng: random.Random, width: int, full: bool) -> dict[str, object]:
    """What timm's ResNets share: four stages of doubling width."""
    return {
        "layers": stages(rng.randint(4, 7 if full else 6), 4, rng),
        "channels": [width * 2**stage for stage in range(4)],
        "act_layer": rng.choice(ACTIVATIONS),
        "avg_down": rng.random() < 0.3,
        # Dilation in place of strides: small images keep some resolution.
        "output_stride": rng.choice((32, 16, 8)),
    }


def _finish(family: str, spec: str, kwargs: dict[str, object], width: int) -> Architecture:
    layers = kwargs["layers"]
    assert isinstance(layers, list)
    return Architecture(spec=spec, kwargs=kwargs, family=family, depth=sum(layers), width=width)
