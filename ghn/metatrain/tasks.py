"""What targets are trained on while the hypernetwork learns: batches and a loss for each kind of data."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ghn.data.images import ImageData
from ghn.data.load import load_images, load_text
from ghn.data.order import Split
from ghn.data.text import TextData, load_tokenizer
from ghn.metatrain.config import MetaTrainConfig


class Examples:
    """A split on a device: fetched as asked for on the CPU, kept there as tensors on any other if memory allows."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self._split = split
        self._device = device
        self._kept: tuple[Tensor, ...] | None = None
        if device.type != "cpu" and split.in_memory:
            self._kept = tuple(column.to(device) for column in split.__getitems__(list(range(len(split)))))

    def digest(self) -> str:
        """Of the number of examples and sixteen of them: data that differ in others alone are not told apart."""
        count = len(self._split)
        some = self._split.__getitems__([count * part // 16 for part in range(16)])
        values = b"".join(column.contiguous().numpy().tobytes() for column in some)
        return f"{count}-{hashlib.sha256(values).hexdigest()[:16]}"

    def batches(self, count: int, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
        """Draw ``count`` batches of ``size`` examples, the same on every device."""
        for rows in torch.randint(len(self._split), (count, size), generator=generator):
            if self._kept is None:
                fetched = self._split.__getitems__(rows.tolist())
                yield tuple(column.to(self._device, non_blocking=True) for column in fetched)
            else:
                moved = rows.to(self._device, non_blocking=True)
                yield tuple(column[moved] for column in self._kept)


class Task(Protocol):
    """Data and loss of one kind."""

    kind: str
    """'images' or 'text', as ``ghn.spaces`` has it."""
    examples: Examples

    @property
    def width(self) -> int:
        """Classes, or entries of the vocabulary."""

    @property
    def arguments(self) -> dict[str, Any]:
        """What the data adds to a target's own arguments."""

    def example(self, batch: tuple[Tensor, ...]) -> Any:
        """Inputs to trace a target with, on the CPU."""

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Mean cross-entropy of a model on a batch, in nats."""


@dataclass
class ImageTask:
    """Classification; images are normalized per channel."""

    data: ImageData
    examples: Examples
    kind: str = "images"

    @property
    def width(self) -> int:
        """Number of classes."""
        return self.data.classes

    @property
    def arguments(self) -> dict[str, Any]:
        """The number of classes."""
        return {"num_classes": self.data.classes}

    def example(self, batch: tuple[Tensor, ...]) -> Tensor:
        """Images ``(batch, 3, side, side)``; convolutions run faster with channels last."""
        return self._normalized(batch[0].cpu())

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Cross-entropy of the logits."""
        return nn.functional.cross_entropy(model(self._normalized(batch[0])).float(), batch[1])

    def _normalized(self, pixels: Tensor) -> Tensor:
        mean, std = (values.to(pixels.device)[:, None, None] for values in (self.data.mean, self.data.std))
        return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


@dataclass
class TextTask:
    """Next-token prediction."""

    data: TextData
    examples: Examples
    kind: str = "text"

    @property
    def width(self) -> int:
        """Entries of the vocabulary."""
        return self.data.vocabulary

    @property
    def arguments(self) -> dict[str, Any]:
        """The ids of special tokens."""
        return dict(self.data.special)

    def example(self, batch: tuple[Tensor, ...]) -> dict[str, Any]:
        """Token ids ``(batch, length)``."""
        return {"input_ids": batch[0][:, :-1].cpu(), "use_cache": False}

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Cross-entropy of each token given those before it."""
        logits = model(input_ids=batch[0][:, :-1], use_cache=False).logits.float()
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[0][:, 1:].flatten())


def load_tasks(config: MetaTrainConfig, device: torch.device) -> dict[str, Task]:
    """Load the data of a run: 'images', and 'text' or, with several tokenizers, one task for each.

    Raises:
        DataError: If a source is missing or holds the other kind of data.
        ConfigError: If there is no tokenizer of a name.
    """
    tasks: dict[str, Task] = {}
    if config.learns_from_images:
        images = load_images(config.images).fit(config.image_size, 3)
        tasks["images"] = ImageTask(images, Examples(images.train, device))
    if config.text:
        documents = load_text(config.text)
        for number, name in enumerate(config.tokenizers):
            text = documents.tokenize(load_tokenizer(name), config.sequence_length, config.text_tokens)
            tasks[f"text{number or ''}"] = TextTask(text, Examples(text.train, device))
    return tasks
