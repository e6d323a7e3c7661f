"""Classes of images."""

from typing import ClassVar

import torch
from torch import Tensor

from ghn.data.images import ImageData
from ghn.tasks.task import Batch, Inputs, Task


class ImageClassification(Task):
    """Top-1 accuracy on labelled images, which are normalized by channel.

    Args:
        data: The images, of one size.
        grey: Share of the augmented batches that have no colours.
    """

    name: ClassVar[str] = "image-classification"
    kind: ClassVar[str] = "images"

    def __init__(self, data: ImageData, grey: float = 0.0) -> None:
        self.train, self.evaluation = data.train, data.evaluation
        self.classes = data.classes
        self.arguments = {"num_classes": data.classes}
        self._flips, self._grey = data.flips, grey
        self._mean, self._std = data.mean[:, None, None], data.std[:, None, None]

    def inputs(
        self, batch: Batch, device: torch.device, augment: torch.Generator | None = None
    ) -> tuple[Inputs, Tensor]:
        """Normalized images ``(batch, channels, size, size)``, and labels ``(batch,)``; see ``Task.inputs``.

        Convolutions run faster with channels last.
        """
        images, labels = batch
        grey = False
        if augment is not None:
            images = shift_and_mirror(images, augment, self._flips)
            grey = bool(self._grey and torch.rand((), generator=augment) < self._grey)
        images = images.to(device, non_blocking=True).float()
        images = images.sub_(self._mean.to(device)).div_(self._std.to(device))
        if grey:
            images = images.mean(1, keepdim=True).expand_as(images)
        images = images.contiguous(memory_format=torch.channels_last)
        return self.named(images), labels.to(device, non_blocking=True)

    def named(self, images: Tensor) -> Inputs:
        """The arguments of a network."""
        return (images,)


def shift_and_mirror(images: Tensor, generator: torch.Generator, flips: bool) -> Tensor:
    """Shift each image by up to an eighth of its size, repeating its edge, and mirror every other one if asked.

    Args:
        images: Shape ``(batch, channels, height, width)``, on the CPU.
        generator: Random numbers; images don't influence how many are drawn.
        flips: Whether to mirror left and right.
    """
    count, _, height, width = images.shape
    reach = torch.tensor([height // 8, width // 8])
    shift = (torch.rand(count, 2, generator=generator) * (2 * reach + 1)).long() - reach
    rows = (torch.arange(height) + shift[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width) + shift[:, 1:]).clamp(0, width - 1)
    if flips:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    picked = images[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
