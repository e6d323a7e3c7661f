"""Tables of slots in files: what a run leaves, what another begins with, and checkpoints made of them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from ghn.decoder.config import DecoderConfig
from ghn.decoder.slot_decoder import SlotDecoder
from ghn.decoder.slots import SlotBank, SlotSize
from ghn.encoder import EncoderConfig
from ghn.errors import CheckpointError, ConfigError, one_line
from ghn.files import replacing
from ghn.hypernetwork import GHN, GHNConfig

TABLES = "tables.safetensors"
"""File of a run's folder that holds the averaged tables, in half precision."""

_DAMAGE = (
    SafetensorError,
    OSError,
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
    RuntimeError,
    ConfigError,
)
"""What reading a file raises that holds something else, or half."""


ENCODER = EncoderConfig(hidden=32, layers=1)


def save_tables(bank: SlotBank, path: Path) -> None:
    """Write tables alone, in half precision.

    Raises:
        OutputError: If they can't be written.
    """
    tensors = {name: value.half().contiguous() for name, value in bank.state_dict().items()}
    with replacing(path, "free some space") as part:
        save_file(tensors, part, {"sizes": json.dumps(bank.to_slots())})


def load_tables(path: Path) -> SlotBank:
    """Read what ``save_tables`` wrote, from its file or the folder of a run, or take those of a checkpoint with slots.

    Raises:
        CheckpointError: If it is neither, or the tables have other sizes than they say.
    """
    if path.is_dir() and not (path / TABLES).is_file():
        decoder = GHN.from_pretrained(path).decoder
        if not isinstance(decoder, SlotDecoder):
            raise CheckpointError(
                f"{path} is a checkpoint without slots; give one that has them, or a run's folder"
            )
        return decoder.bank
    path = path / TABLES if path.is_dir() else path
    if not path.is_file():
        raise CheckpointError(
            f"{path} doesn't exist; expected a run's folder, tables that it wrote, or a checkpoint's folder"
        )
    try:
        with safe_open(path, "pt") as file:
            sizes = json.loads((file.metadata() or {})["sizes"])
            DecoderConfig(slots=sizes)  # checks them
            shapes = [file.get_slice(name).get_shape() for name in file.keys() if "." in name]  # noqa: SIM118
        expected = sum(SlotSize(*values).numel for values in sizes.values())
        if sum(map(math.prod, shapes)) != expected:  # before memory is taken
            raise ValueError(f"{sum(map(math.prod, shapes))} numbers where its sizes say {expected}")
        bank = SlotBank(sizes)
        bank.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except _DAMAGE as error:
        raise CheckpointError(f"{path} holds no tables that fit together: {one_line(error)}") from error
    return bank


def merge(banks: Sequence[SlotBank]) -> SlotBank:
    """One bank with the tables of all: of a kind of place that several have, the last one's."""
    whole = SlotBank(
        dict(sorted({key: sizes for bank in banks for key, sizes in bank.to_slots().items()}.items()))
    )
    numbers = {name: number for number, name in enumerate(whole.names)}
    with torch.no_grad():
        for bank in banks:
            for number, name in enumerate(bank.names):
                to, key = numbers[name], name.rpartition("/")[0]
                if whole.sizes[key] == bank.sizes[key]:
                    whole.rows[to].copy_(bank.rows[number])
                    whole.columns[to].copy_(bank.columns[number])
                    whole.share[to] = bank.share[number]
                    whole.gain[to] = bank.gain[number]
    return whole


def hypernetwork(bank: SlotBank) -> GHN:
    """A hypernetwork that decodes by a bank's slots; its graph encoder has learned nothing, and is small."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = GHN(GHNConfig(encoder=ENCODER, decoder=DecoderConfig(slots=bank.to_slots())))
    assert isinstance(net.decoder, SlotDecoder)
    net.decoder.bank.load_state_dict(bank.state_dict())
    return net.eval()


def prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those of some tensors whose names begin with a prefix, without it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
