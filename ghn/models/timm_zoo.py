"""timm: image backbones and classifiers."""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from ghn.errors import ModelError, did_you_mean
from ghn.models.arguments import call_factory

BATCH = 2
"""BatchNorm in train mode needs two values per channel, and some features are 1 × 1."""


def names() -> list[str]:
    """All architectures, without the tags of pretrained weights."""
    return list(timm.list_models())


def build(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """Construct a timm model; see ``ghn.load_model``."""
    if kwargs.get("pretrained"):
        raise ModelError(
            "Got pretrained=True; load_model makes architectures with their own random init only"
        )
    arguments = {key: value for key, value in kwargs.items() if key != "pretrained"}
    if name.startswith("hf-hub:"):
        return call_factory(timm.create_model, name, arguments, model_name=name, pretrained=False)
    if not timm.is_model(name):
        architecture = name.partition(".")[0]
        raise ModelError(f"timm has no model {architecture!r}.{did_you_mean(architecture, names())}")
    entrypoint = timm.model_entrypoint(name)
    return call_factory(
        timm.create_model, name, arguments, takes=entrypoint, model_name=name, pretrained=False
    )


def example_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A batch of normalized images in the size that the model was built for."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(BATCH, *_input_size(model), generator=generator),), {}


def _input_size(model: nn.Module) -> tuple[int, int, int]:
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    channels, height, width = config.get("input_size") or (3, 224, 224)
    size = _own_size(model)
    if size is not None:
        height, width = size
    return _own_channels(model, channels), height, width


def _own_size(model: nn.Module) -> tuple[int, int] | None:
    """The image size that a model insists on, from itself or the first module that says one, its patch embedding."""
    for module in model.modules():
        size = getattr(module, "img_size", None)
        if isinstance(size, int):
            return size, size
        if isinstance(size, (tuple, list)) and len(size) == 2:
            return int(size[0]), int(size[1])
    return None


def _own_channels(model: nn.Module, default: int) -> int:
    """Input channels that ``in_chans`` may have changed: the model's word, else the first convolution's."""
    channels = getattr(model, "in_chans", None)
    if isinstance(channels, int):
        return channels  # a first convolution behind a folding of space into channels has more
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return default
