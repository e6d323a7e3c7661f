"""Where checkpoints are: the shipped one, a folder, or a hub id."""

import json
from pathlib import Path

from ghn.errors import CheckpointError, did_you_mean

DEFAULT_CHECKPOINT = "ghn-small"
"""Folder name of the checkpoint that ships with the package."""

WEIGHTS, CONFIG = "model.safetensors", "config.json"
"""The files of a checkpoint."""

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")


def shipped_folders() -> list[Path]:
    """Folders of the shipped checkpoints: inside an installed package, or beside it in a clone."""
    package = Path(__file__).parent
    for root in (package / "_checkpoints", package.parent / "checkpoints"):
        found = sorted(path.parent for path in root.glob("*/config.json"))
        if found:
            return found
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
    if path.is_file():
        if path.suffix in PICKLES:
            raise CheckpointError(
                f"{name} is a pickle, and loading one runs whatever code it holds: refused. ghn checkpoints are "
                "folders with config.json and model.safetensors"
            )
        if path.name in (WEIGHTS, CONFIG):
            return resolve_checkpoint(path.parent)
        raise CheckpointError(f"{name} is a file; expected a folder with config.json and model.safetensors")
    if path.is_dir():
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
    weights, config = folder / WEIGHTS, folder / CONFIG
    if not weights.is_file():
        pickles = [child.name for child in folder.iterdir() if child.suffix in PICKLES]
        hint = f" ({pickles[0]} is a pickle: refused, since loading one runs code)" if pickles else ""
        raise CheckpointError(
            f"{folder} has no model.safetensors{hint}; expected what GHN.save_pretrained writes"
        )
    if not config.is_file():
        raise CheckpointError(f"{folder} has no config.json; expected what GHN.save_pretrained writes")
    try:
        values = json.loads(config.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{config} is not JSON: {error}; copy or download the checkpoint again"
        ) from error
    if not isinstance(values, dict) or "decoder" not in values:
        raise CheckpointError(
            f"{config} is not the configuration of a hypernetwork; expected what save_pretrained writes"
        )
