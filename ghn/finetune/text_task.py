"""Language modelling with any causal model: whether it is one, and fits the tokens."""

import json
from typing import Any

import torch
from torch import Tensor, nn

from ghn.data.text import MAX_TOKENS, Documents, load_tokenizer
from ghn.errors import ConfigError, DataError
from ghn.finetune.task import ModelTask, first_that_builds
from ghn.tasks import Inputs, LanguageModeling, call, logits_of

LENGTH = 128
"""Tokens that a model reads at once, unless the user says."""

_CHECKED_LENGTH = 16
"""Tokens of the example at most: enough to see that a model runs and looks back only."""


class TextTask(ModelTask, LanguageModeling):
    """Bits per byte of a causal language model.

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

    eval_samples = 128

    def __init__(
        self,
        data: Documents,
        dataset: str,
        model: str,
        arguments: dict[str, Any],
        tokenizer: str,
        length: int,
        enough: int | None,
    ) -> None:
        self.dataset, self.model = dataset, model
        self.settings = {"sequence_length": length, "tokenizer": tokenizer}
        if model.startswith(("timm:", "torchvision:")):
            raise ConfigError(
                f"{model} is a vision model, but {dataset!r} holds text; choose a language model, for example "
                "--model hf:gpt2, or a data set of images, for example --dataset digits"
            )
        most = MAX_TOKENS if enough is None else enough * length + 1
        tokens = data.tokenize(load_tokenizer(tokenizer), length, most)
        LanguageModeling.__init__(self, tokens)
        self._length = length
        self._hf = model.startswith("hf:")
        if self._hf:
            arguments = {"task": self.name, "vocab_size": self.vocabulary, **arguments}
        candidates = [tokens.special, {}] if self._hf else [{}]
        self._skeleton, self.model_kwargs = first_that_builds(model, [ids | arguments for ids in candidates])
        vocabulary = self.model_kwargs.get("vocab_size", self.vocabulary)
        if isinstance(vocabulary, int) and vocabulary < self.vocabulary:
            raise ConfigError(
                f"the model has a vocabulary of {vocabulary}, but tokenizer {tokenizer!r} has "
                f"{self.vocabulary} ids; leave vocab_size out of --model-kwargs"
            )

    def build(self, seed: int) -> nn.Module:
        """See ``ModelTask.build``; training has no use for a cache of keys and values."""
        model = super().build(seed)
        if hasattr(model, "config") and hasattr(model.config, "use_cache"):
            model.config.use_cache = False
        return model

    def example(self) -> Inputs:
        """Two short pieces of the training text."""
        return self.named(self._example_ids())

    def _example_ids(self) -> Tensor:
        windows = self.train.__getitems__([0, len(self.train) // 2])[0]
        return windows[:, :-1][:, :_CHECKED_LENGTH]

    def named(self, ids: Tensor) -> Inputs:
        """See ``LanguageModeling.named``; not every model has a say in its cache."""
        return {"input_ids": ids} if self._hf else (ids,)

    def check(self) -> int:
        """See ``ModelTask.check``."""
        config = getattr(self._skeleton, "config", None)
        if getattr(config, "is_encoder_decoder", False):
            raise ConfigError(
                f"{self.model} is an encoder-decoder; language modelling takes a causal model, such as hf:gpt2"
            )
        limit = getattr(config, "max_position_embeddings", None)
        if isinstance(limit, int) and limit < self._length:
            fix = json.dumps({"max_position_embeddings": self._length})
            raise ConfigError(
                f"{self.model} has {limit} positions, but sequences have {self._length} tokens; pass a "
                f"smaller --sequence-length or --model-kwargs '{fix}'"
            )
        return super().check()

    def _cannot_run(self, reason: str) -> str:
        return f"{self.model} can't run on token ids ({reason}); choose a causal language model, for example hf:gpt2"

    def _check_output(self, model: nn.Module, output: Any) -> None:
        logits = logits_of(output)
        ids = self._example_ids().clone()
        expected = tuple(ids.shape)
        if logits.ndim != 3 or logits.shape[:2] != expected or logits.shape[2] < self.vocabulary:
            raise DataError(
                f"{self.model} gives outputs of shape {tuple(logits.shape)} for token ids of shape {expected}; "
                f"expected {self.vocabulary} or more logits for each: choose a model with a language-modelling "
                "head, for example hf:X:AutoModelForCausalLM"
            )
        ids[:, -1] = (ids[:, -1] + 1) % self.vocabulary
        with torch.no_grad():
            other_logits = logits_of(call(model, self.named(ids)))
        if not torch.allclose(other_logits[:, :-1], logits[:, :-1], rtol=1e-3, atol=1e-4):
            raise DataError(
                f"{self.model} is not causal: its predictions change with tokens that come after them, so it would see "
                "what it must predict; choose a causal model, for example hf:X:AutoModelForCausalLM"
            )
