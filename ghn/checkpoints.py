"""Where checkpoints are (the shipped one, a folder, or a hub id), and what can be known of one before it is loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghn.errors import CheckpointError, did_you_mean, one_line

DEFAULT_CHECKPOINT = "ghn-slots"
"""Folder name of the shipped checkpoint that is loaded where none is named."""

WEIGHTS, CONFIG = "model.safetensors", "config.json"
"""The files of a checkpoint."""

MOST_BYTES = 2**21
"""Of a configuration or a header; the largest of ours have about a quarter of it."""

MOST_DIMENSIONS = 8
"""Of a stored tensor; ours have two."""

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")


def shipped_folders() -> list[Path]:
    """Folders of the shipped checkpoints: inside an installed package, or beside it in a clone."""
    package = Path(__file__).parent
    for root in (package / "_checkpoints", package.parent / "checkpoints"):
        folders = sorted(path.parent for path in root.glob("*/config.json"))
        if folders:
            return folders
    return []


def resolve_checkpoint(checkpoint: str | Path | None) -> str:
    """Find a checkpoint: None is the shipped default, then folders, then names of shipped ones, else a hub id.

    Raises:
        CheckpointError: If it can't be a checkpoint: missing, incomplete, or a pickle (never loaded: unpickling runs
            code).
    """
    if not isinstance(checkpoint, str | Path | None):
        raise CheckpointError(
            f"a checkpoint is a folder or 'org/name' on the hub, got {type(checkpoint).__name__}; example inputs go "
            "into inputs=…"
        )
    shipped = {folder.name: folder for folder in shipped_folders()}
    name = DEFAULT_CHECKPOINT if checkpoint is None else str(checkpoint)
    path = Path(name)
    try:
        kind = "folder" if path.is_dir() else "file" if path.is_file() else ""
    except OSError as error:  # too long, or in a folder that can't be read
        raise CheckpointError(
            f"no checkpoint can be read at {name[:100]!r}: {one_line(error, 100)}"
        ) from error
    if kind == "file":
        if path.suffix in PICKLES:
            raise CheckpointError(
                f"{name} is a pickle, and loading one runs whatever code it holds: refused. ghn checkpoints are "
                "folders with config.json and model.safetensors"
            )
        if path.name in (WEIGHTS, CONFIG):
            return resolve_checkpoint(path.parent)
        raise CheckpointError(f"{name} is a file; expected a folder with config.json and model.safetensors")
    if kind == "folder":
        _check_folder(path)
        return name
    if name in shipped:
        _check_folder(shipped[name])
        return str(shipped[name])
    if name.count("/") != 1 or name.startswith((".", "/")) or path.parent.is_dir():
        siblings = (
            [str(path.parent / child.name) for child in path.parent.iterdir()] if path.parent.is_dir() else []
        )
        raise CheckpointError(
            f"no checkpoint at {name!r}: expected a folder, one of the shipped ones ({', '.join(shipped) or 'none'}), "
            f"or 'org/name' on the hub.{did_you_mean(name, [*shipped, *siblings])}"
        )
    return name


def _check_folder(folder: Path) -> None:
    try:
        names = [child.name for child in folder.iterdir()]
        weights, config = (folder / WEIGHTS).is_file(), (folder / CONFIG).is_file()
    except OSError as error:
        raise CheckpointError(f"{folder} can't be read ({error.strerror}); change its permissions") from error
    if not weights:
        pickles = [name for name in names if name.endswith(PICKLES)]
        hint = f" ({pickles[0]} is a pickle: refused, since loading one runs code)" if pickles else ""
        inside = " (a run's checkpoint is in its folder 'checkpoint')" if "checkpoint" in names else ""
        raise CheckpointError(
            f"{folder} has no model.safetensors{hint}; expected what GHN.save_pretrained writes{inside}"
        )
    if not config:
        raise CheckpointError(f"{folder} has no config.json; expected what GHN.save_pretrained writes")
    values = read_config(folder / CONFIG)
    if not isinstance(values, dict) or "decoder" not in values:
        raise CheckpointError(
            f"{folder / CONFIG} is not the configuration of a hypernetwork; expected what save_pretrained writes"
        )


def read_config(path: Path) -> Any:
    """Read a JSON file of a checkpoint.

    Raises:
        CheckpointError: If it can't be read, is no JSON, names something twice, or is far too large or deep.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, and at most {MOST_BYTES:,} are read")
        return _json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} can't be read ({error.strerror}); change its permissions") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not JSON: {one_line(error)}; copy or download the checkpoint again"
        ) from error


@dataclass(frozen=True)
class Stored:
    """A tensor as the header of a file describes it."""

    dtype: str
    """As safetensors names it: F32, BF16, I8 …"""
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, Stored]:
    """What a safetensors file holds, by name; reads its header alone.

    Raises:
        CheckpointError: If the file can't be read, or this is no such header.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first, then = file.read(8), file.read(1)
            length = int.from_bytes(first, "little")
            if first.startswith((b"PK", b"\x80")) and then != b"{":
                raise CheckpointError(
                    f"{path} is a pickle, and loading one runs whatever code it holds: refused. Save it as safetensors"
                )
            if len(first) < 8 or length > min(size - 8, MOST_BYTES):
                raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
            values = _json(then + file.read(length - 1))
        if not isinstance(values, dict):
            raise ValueError(f"a header that is a {type(values).__name__}")
        return {name: _stored(entry) for name, entry in values.items() if name != "__metadata__"}
    except OSError as error:
        raise CheckpointError(f"{path} can't be read ({error.strerror}); change its permissions") from error
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path} can't be loaded: {one_line(error)}. It is truncated, corrupted, or no safetensors file; copy or "
            "download it again"
        ) from error


def _stored(entry: Mapping[str, Any]) -> Stored:
    shape = tuple(entry["shape"])
    if len(shape) > MOST_DIMENSIONS or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"a shape of {str(shape)[:100]}")
    return Stored(str(entry["dtype"]), shape)


def _json(content: bytes) -> Any:
    """Parse JSON in which no name comes twice: readers differ in which one counts."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            raise ValueError("a name comes twice")
        return values

    return json.loads(content.decode(), object_pairs_hook=unique)
