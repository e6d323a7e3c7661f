"""Language modelling with any causal model."""

import json
import math
from typing import Any

import torch
from torch import Tensor, nn

from ghn.data.text import MAX_TOKENS, Documents, load_tokenizer
from ghn.errors import ConfigError, DataError
from ghn.finetune.task import Inputs, Task, call, first_that_builds, logits_of

LENGTH = 128
"""Tokens that a model reads at once, unless the user says."""

_CHECKED_LENGTH = 16
"""Tokens of the example at most: enough to see that a model runs and looks back only."""


class TextTask(Task):
    """Bits per byte of a causal language model, with the sign turned so that more is better.

    Bits per byte don't depend on the tokenizer as loss per token does: they are the information per UTF-8 byte of the
    evaluation text.

    Args:
        data: The data set.
        dataset: Its name, for messages and results.
        model: Specification for ``ghn.load_model``.
        given: The user's model arguments; the vocabulary size is the tokenizer's unless it is among them.
        tokenizer: ``bytes``, a hub id, or a folder.
        length: Tokens that the model reads at once.
        enough: Training sequences that will be seen at most; None reads all.

    Raises:
        ConfigError: If the tokenizer can't be found or is too large for the model.
        DataError: If there is too little text.
    """

    name = "language-modeling"
    metric_name = "−bits per byte"
    eval_samples = 128

    def __init__(
        self,
        data: Documents,
        dataset: str,
        model: str,
        given: dict[str, Any],
        tokenizer: str,
        length: int,
        enough: int | None,
    ) -> None:
        self.dataset, self.model = dataset, model
        self.chosen = {"sequence_length": length, "tokenizer": tokenizer}
        if model.startswith(("timm:", "torchvision:")):
            raise ConfigError(
                f"{model} is a vision model, but {dataset!r} holds text; choose a language model, for example "
                "--model hf:gpt2, or a data set of images, for example --dataset digits"
            )
        self._tokens = data.tokenize(
            load_tokenizer(tokenizer), length, MAX_TOKENS if enough is None else enough * length + 1
        )
        self.train, self.evaluation = self._tokens.train, self._tokens.evaluation
        self._hf = model.startswith("hf:")
        if self._hf:
            given = {"task": self.name, "vocab_size": self._tokens.vocabulary, **given}
        candidates = [self._tokens.special, {}] if self._hf else [{}]
        self._skeleton, self.model_kwargs = first_that_builds(model, [ids | given for ids in candidates])
        vocabulary = self.model_kwargs.get("vocab_size", self._tokens.vocabulary)
        if isinstance(vocabulary, int) and vocabulary < self._tokens.vocabulary:
            raise ConfigError(
                f"the model has a vocabulary of {vocabulary}, but tokenizer {tokenizer!r} has "
                f"{self._tokens.vocabulary} ids; leave vocab_size out of --model-kwargs"
            )

    def build(self, seed: int) -> nn.Module:
        """See ``Task.build``; training has no use for a cache of keys and values."""
        model = super().build(seed)
        if hasattr(model, "config") and hasattr(model.config, "use_cache"):
            model.config.use_cache = False
        return model

    def example(self) -> Inputs:
        """Two short pieces of the training text."""
        return self._named(self._example_ids())

    def _example_ids(self) -> Tensor:
        windows = self.train.__getitems__([0, len(self.train) // 2])[0]
        return windows[:, :-1][:, :_CHECKED_LENGTH]

    def inputs(
        self, batch: tuple[Tensor, ...], device: torch.device, augment: torch.Generator | None = None
    ) -> tuple[Inputs, Tensor]:
        """Token ids ``(batch, length)``, and the ids that follow each; see ``Task.inputs``."""
        windows = batch[0].to(device, non_blocking=True)
        return self._named(windows[:, :-1]), windows[:, 1:]

    def metric(self, loss: float, accuracy: float) -> float:
        """Negative bits per byte."""
        return -loss / math.log(2) / self._tokens.bytes_per_token

    def _named(self, ids: Tensor) -> Inputs:
        return {"input_ids": ids} if self._hf else (ids,)

    def check(self) -> int:
        """See ``Task.check``."""
        config = getattr(self._skeleton, "config", None)
        if getattr(config, "is_encoder_decoder", False):
            raise ConfigError(
                f"{self.model} is an encoder-decoder; language modelling takes a causal model, such as hf:gpt2"
            )
        limit = getattr(config, "max_position_embeddings", None)
        if isinstance(limit, int) and limit < self._tokens.train.length:
            fix = json.dumps({"max_position_embeddings": self._tokens.train.length})
            raise ConfigError(
                f"{self.model} has {limit} positions, but sequences have {self._tokens.train.length} tokens; pass a "
                f"smaller --sequence-length or --model-kwargs '{fix}'"
            )
        return super().check()

    def _cannot_run(self, reason: str) -> str:
        return f"{self.model} can't run on token ids ({reason}); choose a causal language model, for example hf:gpt2"

    def _check_logits(self, model: nn.Module, logits: Tensor) -> None:
        ids = self._example_ids().clone()
        expected = tuple(ids.shape)
        if logits.ndim != 3 or logits.shape[:2] != expected or logits.shape[2] < self._tokens.vocabulary:
            raise DataError(
                f"{self.model} gives outputs of shape {tuple(logits.shape)} for token ids of shape {expected}; "
                f"expected {self._tokens.vocabulary} or more logits for each: choose a model with a language-modelling "
                "head, for example hf:X:AutoModelForCausalLM"
            )
        ids[:, -1] = (ids[:, -1] + 1) % self._tokens.vocabulary
        with torch.no_grad():
            changed = logits_of(call(model, self._named(ids)))
        if not torch.allclose(changed[:, :-1], logits[:, :-1], rtol=1e-3, atol=1e-4):
            raise DataError(
                f"{self.model} is not causal: its predictions change with tokens that come after them, so it would see "
                "what it must predict; choose a causal model, for example hf:X:AutoModelForCausalLM"
            )
