"""Open a data set by hub id or folder, and choose its splits and columns by what they hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets

from ghn.errors import DataError, one_line

_TRAIN = ("train", "training")
_EVALUATION = ("validation", "valid", "val", "dev", "eval", "test", "testing")
"""Split names in order of preference; 'validation_matched' counts as 'validation'."""

HELD_OUT_SHARE = 0.1
"""Share of the training split that is held out where the data set has no other split."""

_FEW_DOCUMENTS = 20
"""With fewer documents than this, the end of each is held out rather than some of them."""


def open_dataset(source: str) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Open a data set and choose what to train and what to evaluate on.

    Args:
        source: Hub id, ``ID:CONFIGURATION`` where the hub offers several, or a folder: parquet, json, csv or text files
            named by split, a folder of images per class, or what ``save_to_disk`` wrote. A text file is one row.

    Returns:
        Training and evaluation split. The latter is the validation split, else the test split, else a tenth of the
        training split, the same at every call: of a few documents of nothing but text, the last tenth of each.

    Raises:
        DataError: If it doesn't exist, can't be read, or has no usable split.
    """
    splits = _load(source)
    train = _find(splits, _TRAIN)
    evaluation = _find(splits, _EVALUATION)
    if train is None and len(splits) == 1:
        train, evaluation = next(iter(splits)), None
    if train is None:
        raise DataError(f"data set {source!r} has no training split; it has {', '.join(map(repr, splits))}")
    if evaluation is None:
        return _hold_out(splits[train], source)
    for name in (train, evaluation):
        if not len(splits[name]):
            raise DataError(f"split {name!r} of data set {source!r} is empty")
    return splits[train], splits[evaluation]


def find_column(features: datasets.Features, fits: Callable[[str, Any], bool]) -> str | None:
    """First column whose name and feature fit, or None."""
    return next((name for name, feature in features.items() if fits(name, feature)), None)


def is_image(name: str, feature: Any) -> bool:
    """Whether a column holds images."""
    return isinstance(feature, datasets.Image)


def is_string(name: str, feature: Any) -> bool:
    """Whether a column holds text, of any use."""
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def describe(features: datasets.Features) -> str:
    """Columns and what they hold, for messages."""
    return ", ".join(f"{name} ({getattr(f, 'dtype', type(f).__name__)})" for name, f in features.items())


def _hold_out(rows: datasets.Dataset, source: str) -> tuple[datasets.Dataset, datasets.Dataset]:
    column = find_column(rows.features, is_string)
    if 0 < len(rows) < _FEW_DOCUMENTS and list(rows.features) == [column]:
        cuts = [(text or "", round(len(text or "") * (1 - HELD_OUT_SHARE))) for text in rows[column]]
        starts, ends = [text[:cut] for text, cut in cuts], [text[cut:] for text, cut in cuts]
        return datasets.Dataset.from_dict({column: starts}), datasets.Dataset.from_dict({column: ends})
    if len(rows) < 2:
        raise DataError(f"data set {source!r} has {len(rows)} rows; expected 2 or more")
    halves = rows.train_test_split(test_size=HELD_OUT_SHARE, seed=0)
    return halves["train"], halves["test"]


def _load(source: str) -> dict[str, datasets.Dataset]:
    path, configuration = Path(source), None
    if not path.exists() and _looks_local(source):
        raise DataError(
            f"no data set at {source!r}: the folder does not exist; give an existing folder, a hub id, 'digits' or "
            "'python-stdlib'"
        )
    if not path.exists():
        source, _, configuration = source.partition(":")
    elif path.is_file():
        raise DataError(f"{source!r} is a file; give the folder that holds it")
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            data = datasets.load_from_disk(source)
        else:
            builder = datasets.load_dataset_builder(source, configuration or None)
            # Of text files, which would otherwise be read as lines without their breaks.
            whole = {"sample_by": "document"} if hasattr(builder.config, "sample_by") else {}
            data = datasets.load_dataset(source, configuration or None, **whole)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first = one_line(error)
        hint = ""
        if "onfig name is missing" in first:
            hint = f"; choose one, for example {source + ':CONFIGURATION'!r}"
        elif not path.exists():
            hint = "; check the id and the network, or give a folder, 'digits' or 'python-stdlib'"
        raise DataError(f"data set {source!r} can't be opened: {first}{hint}") from error
    return dict(data) if isinstance(data, dict) else {"train": data}


def _looks_local(source: str) -> bool:
    return source.startswith((".", "/", "~")) or "\\" in source or source.count("/") > 1


def _find(splits: dict[str, datasets.Dataset], names: tuple[str, ...]) -> str | None:
    for name in names:
        for split in splits:
            if split.lower() == name or split.lower().startswith((f"{name}_", f"{name}.", f"{name}-")):
                return split
    return None
