"""Images to classify, as uint8 tensors of one size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ghn.data.source import describe, find_column, is_image
from ghn.errors import DataError

CACHE_BYTES = 4 * 2**30
"""Splits that fit are decoded once and kept."""

STATISTICS_SAMPLE = 250
"""About so many images give the mean and standard deviation of the channels."""

_LABELS = ("label", "labels", "fine_label", "class", "target", "y")
"""Names of integer columns that may hold classes where the data set doesn't say so."""


class ImageSplit:
    """Labelled images, decoded when they are first asked for and kept if they fit in memory.

    Args:
        images: Anything whose ``[list of indices]`` gives a list of PIL images.
        labels: Class of each image, shape ``(count,)``.
        size: Height and width to bring images to: the shorter side is resized, the longer cropped in the middle.
        channels: 1 (grey) or 3 (colour).
    """

    def __init__(self, images: Any, labels: Tensor, size: int, channels: int) -> None:
        self._images = images
        self.labels = labels
        self.size = size
        self._mode = {1: "L", 3: "RGB"}[channels]
        shape = (len(labels), channels, size, size)
        self.in_memory = math.prod(shape) <= CACHE_BYTES
        # Pages that are never written take no memory, so a short run keeps only what it has seen.
        self._cache = torch.empty(shape if self.in_memory else 0, dtype=torch.uint8)
        self._ready = torch.zeros(len(labels), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images ``(batch, channels, size, size)``, uint8, and labels ``(batch,)``."""
        rows = torch.as_tensor(indices)
        if not self.in_memory:
            return self._decode(list(indices)), self.labels[rows]
        missing = rows[~self._ready[rows]]
        if len(missing):
            self._cache[missing] = self._decode(missing.tolist())
            self._ready[missing] = True
        return self._cache[rows], self.labels[rows]

    def _decode(self, indices: list[int]) -> Tensor:
        arrays = [_fit(image, self.size, self._mode) for image in self._images[indices]]
        batch = torch.from_numpy(np.stack(arrays))
        return batch[:, None] if batch.ndim == 3 else batch.permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """A data set of labelled images."""

    train: ImageSplit
    evaluation: ImageSplit
    classes: int
    mean: Tensor
    """Mean of each channel over a sample of the training split, in [0, 255], shape ``(channels,)``."""
    std: Tensor
    flips: bool
    """Whether a mirrored image means the same; not so for digits."""


@dataclass(frozen=True, kw_only=True)
class RawImages:
    """Labelled images as a source holds them: not resized, not counted in channels yet."""

    train: Any
    train_labels: Tensor
    evaluation: Any
    evaluation_labels: Tensor
    classes: int
    native_size: int
    """Shorter side of the first training image."""
    flips: bool = True

    def fit(self, size: int, channels: int) -> ImageData:
        """The data set at the size and number of channels that a model takes."""
        train = ImageSplit(self.train, self.train_labels, size, channels)
        sample = range(0, len(train), max(1, len(train) // STATISTICS_SAMPLE))
        pixels = train.__getitems__(sample)[0].float()
        return ImageData(
            train=train,
            evaluation=ImageSplit(self.evaluation, self.evaluation_labels, size, channels),
            classes=self.classes,
            mean=pixels.mean(dim=(0, 2, 3)),
            std=pixels.std(dim=(0, 2, 3)).clamp(min=1.0),  # a constant channel stays finite
            flips=self.flips,
        )


def digits() -> RawImages:
    """Scikit-learn's 1,797 handwritten digits of 8 × 8 pixels; every fifth is for evaluation."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (bunch.images * (255 / 16)).astype(np.uint8)
    labels = torch.from_numpy(bunch.target).long()
    held_out = torch.arange(len(labels)) % 5 == 4
    return RawImages(
        train=_Arrays(pixels[~held_out.numpy()]),
        train_labels=labels[~held_out],
        evaluation=_Arrays(pixels[held_out.numpy()]),
        evaluation_labels=labels[held_out],
        classes=10,
        native_size=8,
        flips=False,
    )


def from_splits(train: datasets.Dataset, evaluation: datasets.Dataset, source: str) -> RawImages:
    """Find the image and class columns of an opened data set.

    Raises:
        DataError: If there is no such column, or a class is missing or out of range.
    """
    image = find_column(train.features, is_image)
    if image is None:
        raise DataError(
            f"data set {source!r} has no image column; it has {describe(train.features)}. Text goes with a language "
            "model: --model hf:gpt2"
        )
    label = _label_column(train.features)
    if label is None:
        raise DataError(
            f"data set {source!r} has no class column; it has {describe(train.features)}; expected a ClassLabel "
            f"feature, or integers named one of {', '.join(_LABELS)}"
        )
    columns = [_labels(split, label) for split in (train, evaluation)]
    names = getattr(train.features[label], "names", None)
    classes = len(names) if names else int(columns[0].max()) + 1
    for split, labels in zip(("training", "evaluation"), columns, strict=True):
        if int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise DataError(
                f"column {label!r} of the {split} split of {source!r} holds classes from {int(labels.min())} to "
                f"{int(labels.max())}; expected 0 to {classes - 1} (-1 marks hidden labels: use another split)"
            )
    return RawImages(
        train=_Column(train, image),
        train_labels=columns[0],
        evaluation=_Column(evaluation, image),
        evaluation_labels=columns[1],
        classes=classes,
        native_size=min(train[0][image].size),
    )


class _Arrays:
    """Grey images in memory."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels

    def __getitem__(self, indices: list[int]) -> list[Image.Image]:
        return [Image.fromarray(self._pixels[index]) for index in indices]


class _Column:
    """The image column of a data set."""

    def __init__(self, dataset: datasets.Dataset, name: str) -> None:
        self._dataset = dataset.select_columns([name])
        self._name = name

    def __getitem__(self, indices: list[int]) -> list[Image.Image]:
        try:
            return list(self._dataset[indices][self._name])
        except OSError as error:  # Pillow's own error for files that are no image is one
            raise DataError(
                f"an image of the data set can't be read: {error}; remove or repair it"
            ) from error


def _label_column(features: datasets.Features) -> str | None:
    column = find_column(features, lambda name, feature: isinstance(feature, datasets.ClassLabel))
    return column or find_column(
        features,
        lambda name, feature: (
            name.lower() in _LABELS
            and isinstance(feature, datasets.Value)
            and feature.dtype.startswith(("int", "uint"))
        ),
    )


def _labels(split: datasets.Dataset, column: str) -> Tensor:
    if column not in split.features:
        raise DataError(f"the evaluation split has no column {column!r}; it has {describe(split.features)}")
    values = split.select_columns([column]).with_format("arrow")[:][column]
    return torch.from_numpy(values.to_numpy().astype(np.int64))


def _fit(image: Image.Image, size: int, mode: str) -> np.ndarray:
    """Resize the shorter side to ``size`` and crop the middle; shape ``(size, size[, 3])``."""
    image = image.convert(mode)
    width, height = image.size
    if (width, height) != (size, size):
        scale = size / min(width, height)
        wide, high = max(size, round(width * scale)), max(size, round(height * scale))
        left, top = (wide - size) // 2, (high - size) // 2
        image = image.resize((wide, high), Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)
