"""Write an initialized model as its own zoo loads it, completely or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ghn.errors import OutputError, PredictionError

SUFFIX = ".safetensors"

_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "README.md",
)
"""What a folder of transformers holds; nothing else is ever deleted."""


def output_path(spec: str, out: str | Path, overwrite: bool = False) -> Path:
    """Where ``export`` will write; call it before long work, so that what can't be written is known early.

    Args:
        spec: Specification of the model, as ``ghn.load_model`` takes it.
        out: A folder for ``hf:`` models. For others a ``.safetensors`` file, or an existing folder to put it in.
        overwrite: Whether an earlier export may be replaced.

    Raises:
        OutputError: If the name doesn't fit, the place is taken or missing, or nothing can be written there.
    """
    path = Path(out).expanduser()
    if _is_folder_zoo(spec):
        _check_folder(path, spec, overwrite)
    else:
        path = path / _file_name(spec) if path.is_dir() else path
        _check_file(path, spec, overwrite)
    parent = path.absolute().parent
    if not parent.is_dir():
        raise OutputError(
            f"{path} can't be written: there is no folder {parent}; make it with: mkdir -p {parent}"
        )
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise OutputError(
            f"{path} can't be written: {error.strerror} in {parent}; choose another place or change its permissions"
        ) from error
    return path


def export(model: nn.Module, spec: str, out: str | Path, overwrite: bool = False) -> Path:
    """Write a model: a folder for ``AutoModel….from_pretrained`` (``hf:``), a state dictionary for all others.

    The state dictionary holds every parameter and buffer under every name, as ``load_state_dict`` and
    ``timm.create_model(…, checkpoint_path=FILE)`` take it. Everything goes under a temporary name beside the target
    first: an interruption leaves the target as it was.

    Arguments are those of ``output_path``.

    Returns:
        What was written: the file or folder.

    Raises:
        OutputError: As ``output_path``, or if writing fails halfway (disk full).
    """
    path = output_path(spec, out, overwrite)
    with _complete_or_nothing(path) as part:
        if _is_folder_zoo(spec):
            # Of transformers' PreTrainedModel; imported nowhere here.
            cast(Any, model).save_pretrained(part)
        else:
            save_file(_state(model), part, metadata={"format": "pt", "model": spec})
    return path


def _is_folder_zoo(spec: str) -> bool:
    return spec.startswith("hf:")


def _file_name(spec: str) -> str:
    name = spec.partition(":")[2].replace("/", "-").replace(":", "-")
    return f"{name}{SUFFIX}"


def _check_file(path: Path, spec: str, overwrite: bool) -> None:
    if path.suffix != SUFFIX:
        raise OutputError(
            f"{path} doesn't end with {SUFFIX}, and {spec!r} is written as one such file; "
            f"pass {path.with_suffix(SUFFIX)}, or an existing folder"
        )
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; pass --overwrite (overwrite=True) to replace it, or another name")


def _check_folder(path: Path, spec: str, overwrite: bool) -> None:
    if path.is_file() or path.suffix == SUFFIX:
        raise OutputError(
            f"{path} is a file's name, and {spec!r} is written as a folder; pass {path.with_suffix('')}"
        )
    entries = sorted(child.name for child in path.iterdir()) if path.is_dir() else []
    if entries and not overwrite:
        raise OutputError(
            f"{path} is not empty; pass --overwrite (overwrite=True) to replace it, or another name"
        )
    foreign = [name for name in entries if not any(fnmatchcase(name, known) for known in _MODEL_FILES)]
    if foreign:
        raise OutputError(
            f"{path} holds more than a model ({foreign[0]!r}, for one), which overwriting would delete; "
            "choose another folder"
        )


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The state dictionary without shared memory, which safetensors refuses and strict loading needs spelled out."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise PredictionError(
                f"{name!r} in the model's state is {type(value).__name__}; only tensors can be written as {SUFFIX}"
            )
        shared = value.untyped_storage().data_ptr() in seen
        seen.add(value.untyped_storage().data_ptr())
        state[name] = value.clone().contiguous() if shared else value.contiguous()
    return state


@contextmanager
def _complete_or_nothing(path: Path) -> Iterator[Path]:
    """Hand out a temporary name beside ``path`` and rename it at the end; on any failure remove it."""
    part = path.absolute().parent / f".{path.name}.{os.getpid()}.part"
    try:
        yield part
        _replace(part, path)
    except (OSError, SafetensorError, ValueError) as error:
        raise OutputError(f"{path} could not be written: {error}; nothing was left behind") from error
    finally:
        _remove(part)


def _replace(part: Path, path: Path) -> None:
    if not path.is_dir():
        part.replace(path)
        return
    # A folder can't be replaced in one step everywhere: move the old one aside, and back if the new one won't come.
    old = part.with_suffix(".old")
    path.replace(old)
    try:
        part.replace(path)
    except OSError:
        old.replace(path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
