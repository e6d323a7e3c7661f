"""torchvision: classification, quantizable, segmentation, detection, video and optical flow models."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torchvision.models as zoo
from torch import Tensor, nn
from torchvision.models import detection, optical_flow, video

from ghn.errors import ModelError, did_you_mean
from ghn.models.arguments import call_factory

BATCH = 2
"""BatchNorm in train mode needs two values per channel, and some features are 1 × 1."""

_VIDEO = (video.VideoResNet, video.S3D, video.MViT, video.SwinTransformer3d)
_SIZES = {zoo.Inception3: 299, zoo.RegNet: 224, optical_flow.RAFT: 128}
"""Image sizes of models that don't say it themselves; 224 for all others."""


def names() -> list[str]:
    """All builders that torchvision registers."""
    return list(zoo.list_models())


def build(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """Construct a torchvision model; see ``ghn.load_model``."""
    if name not in names():
        raise ModelError(f"torchvision has no model {name!r}.{did_you_mean(name, names())}")
    if any(kwargs.get(key) for key in ("weights", "weights_backbone", "pretrained")):
        raise ModelError("Got weights=…; load_model makes architectures with their own random init only")
    arguments = {key: value for key, value in kwargs.items() if not key.startswith("weights")}
    builder = zoo.get_model_builder(name)
    own: dict[str, Any] = {"weights": None}
    parameters = inspect.signature(builder).parameters
    if builder.__module__.startswith("torchvision.models.segmentation"):
        # These builders swallow what they don't know.
        for key in arguments.keys() - parameters.keys():
            raise ModelError(f"{name!r} takes no argument {key!r}.{did_you_mean(key, parameters)}")
    if "weights_backbone" in parameters:
        own["weights_backbone"] = None
    elif builder in (zoo.googlenet, zoo.inception_v3):
        own["init_weights"] = True  # silences the announcement of a new default
    return call_factory(builder, name, arguments, **own)


def example_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the model's task takes: images, clips, pairs of frames, or a list of images with targets."""
    generator = torch.Generator().manual_seed(0)
    size = _image_size(model)
    if isinstance(model, _VIDEO):
        return (torch.randn(BATCH, 3, 16, size, size, generator=generator),), {}
    if isinstance(model, optical_flow.RAFT):
        first, second = torch.rand(2, BATCH, 3, size, size, generator=generator) * 2 - 1
        return (first, second), {"num_flow_updates": 2}
    if isinstance(model, (detection.FasterRCNN, detection.RetinaNet, detection.FCOS, detection.ssd.SSD)):
        images = [torch.rand(3, size, size, generator=generator) for _ in range(BATCH)]
        return (images, [_target(size) for _ in images]), {}
    return (torch.randn(BATCH, _channels(model), size, size, generator=generator),), {}


def _image_size(model: nn.Module) -> int:
    if isinstance(model, (detection.FasterRCNN, detection.RetinaNet, detection.FCOS, detection.ssd.SSD)):
        return 320
    for kind, size in _SIZES.items():
        if isinstance(model, kind):
            return size
    return int(getattr(model, "image_size", 224))


def _channels(model: nn.Module) -> int:
    """Input channels of the first convolution."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels


def _target(size: int) -> dict[str, Tensor]:
    """One object in the middle of the image, with all that any detector is trained on."""
    low, high = size // 4, 3 * size // 4
    mask = torch.zeros(1, size, size, dtype=torch.uint8)
    mask[:, low:high, low:high] = 1
    keypoints = torch.tensor([low, low, 1], dtype=torch.float32).expand(1, 17, 3).contiguous()
    return {
        "boxes": torch.tensor([[low, low, high, high]], dtype=torch.float32),
        "labels": torch.ones(1, dtype=torch.int64),
        "masks": mask,
        "keypoints": keypoints,
    }
