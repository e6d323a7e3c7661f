"""Everything a run needs to go on exactly where it stopped, in one file that is replaced atomically."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ghn.errors import CheckpointError, ConfigError
from ghn.files import replacing
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.update import Learner

STATE = "state.safetensors"

_HOW_IT_RUNS = ("save_every",)
"""Settings that don't change results, so that a resumed run may change them."""


def save_state(
    folder: Path, step: int, config: MetaTrainConfig, data: Mapping[str, str], learner: Learner
) -> None:
    """Write weights, their average, the optimizer's moments, the losses' means and the step.

    Nothing else is needed: every random number, data position and learning rate is keyed by the step.
    """
    tensors: dict[str, Tensor] = {f"net/{name}": value for name, value in learner.net.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in learner.average.state_dict().items()}
    tensors |= {
        f"means/{name}": torch.tensor(value, dtype=torch.float64) for name, value in learner.means.items()
    }
    for number, entry in learner.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{key}": value for key, value in entry.items()}
    with replacing(
        folder / STATE, "free some space, and the same command goes on from the state before"
    ) as part:
        save_file(
            {name: value.contiguous() for name, value in tensors.items()},
            part,
            # One entry: safetensors writes several in any order, and equal runs are to leave equal files.
            {"run": json.dumps({"step": step, "config": config.to_dict(), "data": data}, sort_keys=True)},
        )


def load_state(folder: Path, config: MetaTrainConfig, data: Mapping[str, str], learner: Learner) -> int:
    """Load what ``save_state`` wrote into a learner, and return the number of steps done; 0 if there is nothing.

    Raises:
        ConfigError: If the state belongs to a run with other settings or data.
        CheckpointError: If the file is damaged.
    """
    path = folder / STATE
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            run = json.loads(file.metadata()["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; delete it to start again") from error
    # Settings that the library has got since keep their defaults.
    wanted = {key: value for key, value in config.to_dict().items() if key not in _HOW_IT_RUNS}
    changed = list(_changes(MetaTrainConfig.from_dict(run["config"]).to_dict(), wanted))
    if changed:
        raise ConfigError(
            f"{folder} holds a run with other settings ({', '.join(changed)}); choose another output folder"
        )
    other = [name for name, digest in run.get("data", {}).items() if data.get(name) != digest]
    if other:
        raise ConfigError(
            f"{folder} holds a run on other data than the {other[0]} of now; bring that back, or choose another output "
            "folder"
        )
    learner.net.load_state_dict(_part(tensors, "net/"))
    learner.average.load_state_dict(_part(tensors, "average/"))
    learner.means = {name: value.item() for name, value in _part(tensors, "means/").items()}
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optimizer/").items():
        number, key = name.split("/")
        state.setdefault(int(number), {})[key] = value
    optimizer = learner.optimizer
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(run["step"])


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Settings that differ, each with both values."""
    for key, value in now.items():
        if isinstance(value, Mapping):
            yield from _changes(before[key], value, f"{prefix}{key}.")
        elif value != before[key]:
            yield f"{prefix}{key} was {before[key]}, now it is {value}"


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
