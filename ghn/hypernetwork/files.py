"""The files of a checkpoint: what they may hold, and how they are written, completely or not at all."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ghn.checkpoints import CONFIG, WEIGHTS, read_header
from ghn.errors import CheckpointError
from ghn.files import part_of, sweep_beside
from ghn.hypernetwork.config import GHNConfig
from ghn.quantization import fits, is_step, is_table

LATER = ("decoder.bank.gain",)
"""Weights that earlier checkpoints have not; they load as what they stand for."""

FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of weights in a file; they are float32 once loaded."""


def check_counts(path: Path, config: GHNConfig) -> None:
    """Compare how many tensors a file holds with what a configuration repeats, before a network is made by it.

    Raises:
        CheckpointError: If there are too few.
    """
    count_stored = len(read_header(path))
    loops = {
        "layers": config.encoder.layers,
        "slots": sum(sizes[5] for sizes in config.decoder.slots.values()),
    }
    for name, count in loops.items():  # even without memory, making very many takes very long
        if count > count_stored:
            raise CheckpointError(
                f"{path} holds {count_stored} tensors, too few for the {count} {name} of config.json; it is truncated, "
                "or the configuration is another checkpoint's: copy or download both again"
            )


def check_tensors(path: Path, network: Mapping[str, Tensor]) -> None:
    """Compare the tensors of a file with a network's, before anything of either's size is made.

    Args:
        path: The file.
        network: State dictionary, on the meta device.

    Raises:
        CheckpointError: If they differ, or the file holds other numbers than floating-point ones and quantized tables.
    """
    stored = read_header(path)
    expected = {name: tuple(value.shape) for name, value in network.items()}
    shapes = {name: entry.shape for name, entry in stored.items() if not is_step(name, stored)}
    wrong = [f"Missing key {name}" for name in expected if name not in shapes and name not in LATER]
    wrong += [f"Unexpected key {name[:100]}" for name in shapes if name not in expected]
    wrong += [
        f"{name} has shape {shapes[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in shapes and not fits(shape, name, stored)
    ]
    wrong += [
        f"{name} has type {entry.dtype}, expected floating-point numbers such as F32"
        for name, entry in stored.items()
        if entry.dtype not in FLOATS and not is_table(name, stored)
    ]
    if wrong:
        raise CheckpointError(
            f"{path} can't be loaded: {wrong[0]}{f' (and {len(wrong) - 1} more)' if wrong[1:] else ''}. It doesn't "
            "hold the network of config.json: it is corrupted, or not a ghn checkpoint; copy or download both again"
        )


def write_parts(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write complete files beside those of an earlier checkpoint, or nothing; ``name_parts`` gives them their names."""
    for name in (WEIGHTS, CONFIG):
        sweep_beside(folder / name)
    weights, settings = parts = [part_of(folder / name) for name in (WEIGHTS, CONFIG)]
    with ExitStack() as undo:
        for part in parts:
            undo.callback(part.unlink, missing_ok=True)
        save_file({name: value.contiguous() for name, value in tensors.items()}, weights)
        settings.write_text(json.dumps(config, indent=2) + "\n")
        undo.pop_all()


def name_parts(folder: Path) -> None:
    """Put the files that ``write_parts`` has left in the place of an earlier checkpoint's."""
    for name in (WEIGHTS, CONFIG):
        part_of(folder / name).replace(folder / name)
