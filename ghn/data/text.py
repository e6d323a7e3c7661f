"""Text to model, as one stream of tokens per split, with the bytes that they stand for."""

import hashlib
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import torch
import transformers
from torch import Tensor

from ghn.data.source import describe, find_column, is_string
from ghn.errors import ConfigError, DataError, one_line

STDLIB_BYTES = 4_000_000
"""Bytes of the Python library's source that ``python-stdlib`` trains on; every Python has as many."""

EVALUATION_BYTES = 400_000
"""Bytes of the evaluation split that are read, in whole documents but the last."""

MAX_TOKENS = 2**28
"""Tokens of the training split that are kept in memory: 1 GB."""

_COLUMNS = ("text", "content", "document", "sentence", "article", "code")
"""Names of columns that hold the text where there are several of strings."""

_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")

_PIECE = 2**16
"""Characters of a document that are tokenized at once, so that long ones take bounded memory."""

_ENCODE_AT_ONCE = 64
"""Pieces per call of the tokenizer: it works on them in parallel."""

Item = TypeVar("Item")


class TextSplit:
    """Windows of ``length + 1`` tokens, each beginning with the token that the one before ends with.

    Args:
        tokens: One-dimensional.
        length: Tokens that a model reads at once.
        label: What the split is, for messages.
    """

    in_memory = True

    def __init__(self, tokens: Tensor, length: int, label: str) -> None:
        if len(tokens) <= length:
            raise DataError(
                f"the {label} split has {len(tokens)} tokens, fewer than one sequence of {length + 1}; pass a smaller "
                "--sequence-length"
            )
        self.tokens = tokens
        self.length = length
        self._offsets = torch.arange(length + 1)

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.length

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor]:
        """Token ids ``(batch, length + 1)``."""
        starts = torch.as_tensor(indices) * self.length
        return (self.tokens[starts[:, None] + self._offsets].long(),)


@dataclass(frozen=True, kw_only=True)
class TextData:
    """A data set of text, tokenized."""

    train: TextSplit
    evaluation: TextSplit
    vocabulary: int
    """Number of token ids."""
    special: dict[str, int | None]
    """Ids of the tokens that begin, end and pad text, as configurations of models name them."""
    bytes_per_token: float
    """UTF-8 bytes per token of the evaluation split; tokens between documents count, and stand for no bytes."""


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Texts as a source holds them; read anew for every tokenizer."""

    train: Iterable[str]
    evaluation: Iterable[str]

    def tokenize(self, tokenizer: Any, length: int, enough: int = MAX_TOKENS) -> TextData:
        """Turn documents into streams of tokens with the tokenizer's end-of-text token after each.

        Args:
            tokenizer: From ``load_tokenizer``.
            length: Tokens that a model reads at once.
            enough: Training tokens after which to stop reading.

        Raises:
            DataError: If a split is shorter than one window.
        """
        held_out = list(_first_bytes(self.evaluation, EVALUATION_BYTES))
        evaluation = _encode(tokenizer, held_out, MAX_TOKENS)
        train = _encode(tokenizer, self.train, min(enough, MAX_TOKENS))
        return TextData(
            train=TextSplit(train, length, "training"),
            evaluation=TextSplit(evaluation, length, "evaluation"),
            vocabulary=len(tokenizer),
            special={name: getattr(tokenizer, name) for name in _SPECIAL},
            bytes_per_token=sum(len(text.encode()) for text in held_out) / len(evaluation),
        )


def load_tokenizer(name: str) -> Any:
    """A tokenizer of ``transformers``: ``bytes`` (ByT5's, needs no file), a hub id, or a folder.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name == "bytes":
        return transformers.ByT5Tokenizer()
    try:
        return transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(
            f"no tokenizer at {name!r} ({one_line(error, 160)}); give 'bytes', a hub id, or "
            "a folder with tokenizer files"
        ) from error


def python_stdlib() -> Documents:
    """Source text of the running Python's standard library, without its tests; every twentieth file for evaluation."""
    root = Path(sysconfig.get_paths()["stdlib"])
    exclusions = {"site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__"}
    files = [path for path in root.rglob("*.py") if not exclusions & set(path.relative_to(root).parts)]
    if not files:
        raise DataError(
            f"the Python library in {root} has no source files; choose another data set, for example --dataset digits"
        )
    # In order of a hash of the path: neighbours differ, and the order is the same on every machine.
    files.sort(key=lambda path: hashlib.sha256(path.relative_to(root).as_posix().encode()).digest())
    train = [path for index, path in enumerate(files) if index % 20]
    return Documents(train=_Files(train, STDLIB_BYTES), evaluation=_Files(files[::20]))


def from_splits(train: datasets.Dataset, evaluation: datasets.Dataset, source: str) -> Documents:
    """Find the text column of an opened data set.

    Raises:
        DataError: If there is none, or several that it could be.
    """
    strings = [name for name, feature in train.features.items() if is_string(name, feature)]
    by_name = find_column(train.features, lambda name, feature: name.lower() in _COLUMNS and name in strings)
    column = by_name or (strings[0] if len(strings) == 1 else None)
    if column is None:
        raise DataError(
            f"data set {source!r} has no text column; it has {describe(train.features)}; expected a column of strings "
            f"named one of {', '.join(_COLUMNS)}, or the only one"
        )
    if column not in evaluation.features:
        raise DataError(
            f"the evaluation split of {source!r} has no column {column!r}; it has {describe(evaluation.features)}"
        )
    return Documents(train=_Rows(train, column), evaluation=_Rows(evaluation, column))


class _Files:
    def __init__(self, paths: list[Path], max_bytes: int | None = None) -> None:
        self._paths = paths
        self._max_bytes = max_bytes

    def __iter__(self) -> Iterator[str]:
        texts = (path.read_text(encoding="utf-8", errors="replace") for path in self._paths)
        return texts if self._max_bytes is None else _first_bytes(texts, self._max_bytes)


class _Rows:
    def __init__(self, dataset: datasets.Dataset, column: str) -> None:
        self._dataset = dataset.select_columns([column])
        self._column = column

    def __iter__(self) -> Iterator[str]:
        for row in self._dataset:
            yield row[self._column] or ""


def _first_bytes(texts: Iterable[str], limit: int) -> Iterator[str]:
    rest = limit
    for text in texts:
        data = text.encode()
        yield text if len(data) <= rest else data[:rest].decode(errors="ignore")
        rest -= len(data)
        if rest <= 0:
            return


def _encode(tokenizer: Any, texts: Iterable[str], enough: int) -> Tensor:
    end = tokenizer.eos_token_id
    parts: list[np.ndarray] = []
    count = 0
    for batch in _batched(_pieces(texts), _ENCODE_AT_ONCE):
        pieces = [piece for piece, _ in batch]
        # verbose=False: a document longer than the tokenizer's own model could read is no mistake here.
        encodings = tokenizer(pieces, add_special_tokens=False, verbose=False)["input_ids"]
        for ids, (_, last) in zip(encodings, batch, strict=True):
            parts.append(np.asarray([*ids, end] if last and end is not None else ids, dtype=np.int32))
            count += len(parts[-1])
        if count >= enough:
            break
    return torch.from_numpy(np.concatenate(parts) if parts else np.zeros(0, np.int32))[:enough]


def _pieces(texts: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Pieces of documents, and whether a piece is the last of its document."""
    for text in texts:
        for start in range(0, max(1, len(text)), _PIECE):
            yield text[start : start + _PIECE], start + _PIECE >= len(text)


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
