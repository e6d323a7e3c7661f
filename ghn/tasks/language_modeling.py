"""The next token of a text."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from ghn.data.text import TextData
from ghn.tasks.task import Batch, Inputs, Task


class LanguageModeling(Task):
    """Bits per byte, with the sign turned so that more is better.

    Bits per byte don't depend on the tokenizer as loss per token does: they are the information per UTF-8 byte of the
    evaluation text.

    Args:
        data: The text, tokenized.
    """

    name: ClassVar[str] = "language-modeling"
    metric_name: ClassVar[str] = "−bits per byte"
    kind: ClassVar[str] = "text"

    def __init__(self, data: TextData) -> None:
        self.train, self.evaluation = data.train, data.evaluation
        self.vocabulary = data.vocabulary
        self.arguments = dict(data.special)
        self._bytes_per_token = data.bytes_per_token

    def inputs(
        self, batch: Batch, device: torch.device, augment: torch.Generator | None = None
    ) -> tuple[Inputs, Tensor]:
        """Token ids ``(batch, length)``, and the ids that follow each; see ``Task.inputs``."""
        windows = batch[0].to(device, non_blocking=True)
        return self.named(windows[:, :-1]), windows[:, 1:]

    def named(self, ids: Tensor) -> Inputs:
        """The arguments of a network of transformers; training has no use for a cache of keys and values."""
        return {"input_ids": ids, "use_cache": False}

    def metric(self, loss: float, accuracy: float) -> float:
        """Negative bits per byte."""
        return -loss / math.log(2) / self._bytes_per_token
