"""Everything a run needs to go on exactly where it stopped, in one file that is replaced atomically."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ghn.decoder.slots import SlotBank
from ghn.errors import CheckpointError, ConfigError
from ghn.files import replacing
from ghn.metatrain.config import MetaTrainConfig, OptimizerConfig
from ghn.metatrain.cutting import Gradients
from ghn.metatrain.optimizer import TableOptimizer
from ghn.metatrain.tables import prefixed

STATE = "state.safetensors"

FORMAT = 2
"""Of the state; a run of an earlier one can't go on."""

_HOW_IT_RUNS = ("save_every",)
"""Settings that don't change results, so that a resumed run may change them."""


@dataclass
class TrainState:
    """All that a run changes."""

    bank: SlotBank
    average: SlotBank
    gradients: Gradients
    optimizer: TableOptimizer
    done: int = 0
    """Updates."""
    seen: int = 0
    """Target-images and target-sequences."""

    @classmethod
    def of(cls, bank: SlotBank, config: OptimizerConfig) -> "TrainState":
        """The state before the first update of a bank."""
        average = SlotBank(bank.to_slots())
        average.load_state_dict(bank.state_dict())
        return cls(bank, average, Gradients(bank), TableOptimizer(bank, average, config))


def save_state(folder: Path, state: TrainState, config: MetaTrainConfig, data: Mapping[str, str]) -> None:
    """Write tables, their average, the optimizer's moments, and how far the run is.

    Nothing else is needed: every random number, batch and learning rate is keyed by the update.

    Raises:
        OutputError: If it can't be written.
    """
    tensors = {f"bank/{name}": value for name, value in state.bank.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in state.average.state_dict().items()}
    for number, entry in state.optimizer.adam.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{key}": value for key, value in entry.items()}
    run = {
        "format": FORMAT,
        "done": state.done,
        "seen": state.seen,
        "config": config.to_dict(),
        "data": data,
        "sizes": state.bank.to_slots(),
    }
    remedy = "free some space, and the same command goes on from the state before"
    with replacing(folder / STATE, remedy) as part:
        # One entry: safetensors writes several in any order, and equal runs are to leave equal files.
        metadata = {"run": json.dumps(run, sort_keys=True)}
        save_file({name: value.contiguous() for name, value in tensors.items()}, part, metadata)


def load_state(folder: Path, config: MetaTrainConfig, data: Mapping[str, str]) -> TrainState | None:
    """What ``save_state`` wrote; None if there is nothing.

    Raises:
        ConfigError: If the state belongs to a run with other settings or data, or of an earlier format.
        CheckpointError: If the file is damaged.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            run = json.loads((file.metadata() or {})["run"])
            _check(run, folder, config, data)
            state = TrainState.of(SlotBank(run["sizes"]), config.optimizer)
            _fill(state, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  (not a mapping)
            state.done, state.seen = run["done"], run["seen"]
    except (SafetensorError, OSError, TypeError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; delete it to start again") from error
    return state


def _check(run: Mapping[str, Any], folder: Path, config: MetaTrainConfig, data: Mapping[str, str]) -> None:
    if run.get("format") != FORMAT:
        raise ConfigError(
            f"{folder} holds a run of an older format, which can't go on; choose another output folder (its tables, if "
            "it has any, can be begun with: --start)"
        )
    before = MetaTrainConfig.from_dict(run["config"]).to_dict()  # settings that are new keep their defaults
    changed = [
        f"{name} was {before[name]!r}, now it is {value!r}"
        for name, value in config.to_dict().items()
        if name not in _HOW_IT_RUNS and before[name] != value
    ]
    if changed:
        raise ConfigError(
            f"{folder} holds a run with other settings ({', '.join(changed)}); choose another output folder"
        )
    other = [name for name, digest in run["data"].items() if data.get(name) != digest]
    if other:
        raise ConfigError(
            f"{folder} holds a run on other data than the {other[0]} of now; bring that back, or choose another output "
            "folder"
        )


def _fill(state: TrainState, tensors: Mapping[str, Tensor]) -> None:
    state.bank.load_state_dict(prefixed(tensors, "bank/"))
    state.average.load_state_dict(prefixed(tensors, "average/"))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in prefixed(tensors, "optimizer/").items():
        number, key = name.split("/")
        moments.setdefault(int(number), {})[key] = value
    adam = state.optimizer.adam
    adam.load_state_dict({"state": moments, "param_groups": adam.state_dict()["param_groups"]})
