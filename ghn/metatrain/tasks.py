"""What targets are trained on while the hypernetwork learns: batches and a loss for each kind of data."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ghn.data.images import ImageData, RawImages
from ghn.data.load import load_data
from ghn.data.text import TextData, load_tokenizer
from ghn.errors import DataError
from ghn.metatrain.config import MetaTrainConfig


class Task(Protocol):
    """Data and loss of one kind."""

    name: str

    @property
    def width(self) -> int:
        """Classes, or entries of the vocabulary."""

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw training examples."""

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Mean cross-entropy of a model on a batch, in nats."""


@dataclass
class ImageTask:
    """Classification; images are normalized per channel."""

    data: ImageData
    name: str = "images"

    @property
    def width(self) -> int:
        """Number of classes."""
        return self.data.classes

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Images ``(size, 3, side, side)`` and labels ``(size,)``."""
        chosen = torch.randint(len(self.data.train), (size,), generator=generator)
        pixels, labels = self.data.train.__getitems__(chosen.tolist())
        return (pixels - self.data.mean.view(-1, 1, 1)) / self.data.std.view(-1, 1, 1), labels

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Cross-entropy of the logits."""
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


@dataclass
class TextTask:
    """Next-token prediction."""

    data: TextData
    name: str = "text"

    @property
    def width(self) -> int:
        """Entries of the vocabulary."""
        return self.data.vocabulary

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Token ids ``(size, length + 1)``."""
        chosen = torch.randint(len(self.data.train), (size,), generator=generator)
        return self.data.train.__getitems__(chosen.tolist())

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Cross-entropy of each token given those before it."""
        logits = model(input_ids=batch[0][:, :-1], use_cache=False).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[0][:, 1:].flatten())


def load_tasks(config: MetaTrainConfig) -> dict[str, Task]:
    """Load the data of a run.

    Raises:
        DataError: If a source is missing or holds the other kind of data.
    """
    tasks: dict[str, Task] = {}
    if config.images:
        raw = load_data(config.images)
        if not isinstance(raw, RawImages):
            raise DataError(f"images={config.images!r} holds text; pass it as text=…")
        tasks["images"] = ImageTask(raw.fit(config.image_size, 3))
    if config.text:
        documents = load_data(config.text)
        if isinstance(documents, RawImages):
            raise DataError(f"text={config.text!r} holds images; pass it as images=…")
        tasks["text"] = TextTask(documents.tokenize(load_tokenizer("bytes"), config.sequence_length))
    return tasks
