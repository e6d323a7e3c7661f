"""Image classification with any vision model: which images it takes, and whether its outputs fit."""

from typing import Any

import torch
from torch import Tensor, nn

from ghn.data.images import RawImages
from ghn.errors import ConfigError, DataError, ModelError
from ghn.finetune.task import ModelTask, first_that_builds
from ghn.models import example_inputs
from ghn.tasks import ImageClassification, Inputs, logits_of

SMALLEST = 32
"""Pixels to which smaller images are enlarged: below, most convolutional networks run out of image."""

LARGEST_SMALL = 64
"""Pixels up to which images keep their size; larger ones get the size that the model was made for."""

_OWN_SIZE = 224
"""Pixels for models that nobody knows the size of."""

_SIZE_ARGUMENTS = {
    "timm": "img_size",
    "torchvision": "image_size",
    "hf": "image_size",
    "python": "image_size",
}
"""How each zoo calls the image size, in the models that have a say in it."""


class ImageTask(ModelTask, ImageClassification):
    """Top-1 accuracy of a vision model on labelled images.

    Args:
        data: The data set.
        dataset: Its name, for messages and results.
        model: Specification for ``ghn.load_model``.
        given: The user's model arguments.
        image_size: Height and width in pixels; None chooses.

    Raises:
        ModelError: If the model can't be built.
        DataError: If it takes neither grey nor colour images.
    """

    eval_samples = 2000

    def __init__(
        self, data: RawImages, dataset: str, model: str, arguments: dict[str, Any], image_size: int | None
    ) -> None:
        self.dataset, self.model = dataset, model
        size_name = _SIZE_ARGUMENTS.get(model.partition(":")[0], "image_size")
        size = image_size or _one_number(arguments.get(size_name))
        if size is None and data.native_size <= LARGEST_SMALL:
            size = max(data.native_size, SMALLEST)
        if model.startswith("hf:"):
            arguments = {"task": self.name, **arguments}
        defaults: list[dict[str, Any]] = [{"num_classes": data.classes}, {}]
        if size is not None:
            defaults.insert(0, {"num_classes": data.classes, size_name: size})
        skeleton, self.model_kwargs = first_that_builds(model, [default | arguments for default in defaults])
        self._keyword, channels, own_size = _what_it_takes(skeleton)
        if channels not in (1, 3):
            raise DataError(
                f"{model} takes images of {channels} channels; {dataset!r} has 1 (grey) or 3 (colour): set the number "
                "of input channels with --model-kwargs"
            )
        self.size = size or own_size
        self.settings = {"image_size": self.size}
        ImageClassification.__init__(self, data.fit(self.size, channels))

    def build(self, seed: int) -> nn.Module:
        """See ``ModelTask.build``; convolutions run faster with channels last."""
        model: nn.Module = super().build(seed).to(memory_format=torch.channels_last)
        return model

    def named(self, images: Tensor) -> Inputs:
        """See ``ImageClassification.named``."""
        return {self._keyword: images} if self._keyword else (images,)

    def _cannot_run(self, reason: str) -> str:
        return (
            f"{self.model} can't run on images of {self.size}×{self.size} pixels ({reason}); pass another "
            "--image-size, or arguments that fit it with --model-kwargs"
        )

    def _check_output(self, model: nn.Module, output: Any) -> None:
        logits = logits_of(output)
        classes = self.classes
        if logits.ndim != 2 or logits.shape[1] != classes:
            raise DataError(
                f"{self.model} gives outputs of shape {tuple(logits.shape)} for 2 images, but {self.dataset!r} has "
                f"{classes} classes; expected (2, {classes}): set the number of classes with --model-kwargs, for "
                f'example {{"num_classes": {classes}}}'
            )


def _what_it_takes(model: nn.Module) -> tuple[str | None, int, int]:
    """Keyword of the images (None: positional), their channels and their size."""
    try:
        args, kwargs = example_inputs(model)
    except ModelError:  # of no known zoo
        convolution = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
        return None, 3 if convolution is None else convolution.in_channels, _OWN_SIZE
    inputs = {**dict.fromkeys(["positional"], args[0] if args else None), **kwargs}
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.ndim == 4:
            return None if name == "positional" else name, value.shape[1], value.shape[-1]
    raise ConfigError(
        f"{type(model).__name__} takes no plain batch of images; choose a classifier, for example --model "
        "timm:test_resnet, or for a language model text, for example --dataset python-stdlib"
    )


def _one_number(size: Any) -> int | None:
    return int(size[0]) if isinstance(size, (list, tuple)) else size
