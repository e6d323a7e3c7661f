"""Tables of slots in files: what a run leaves, what another begins with, and checkpoints made of them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from ghn.decoder.config import DENSE, DecoderConfig
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
"""The graph encoder of checkpoints with slots, which has learned nothing."""


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


def merge(banks: Sequence[SlotBank], sizes: Mapping[str, Sequence[int]] | None = None) -> SlotBank:
    """One bank with the tables of all: of a kind of place that several have, the last one's.

    Args:
        banks: In order.
        sizes: Of kinds of places that shall have others than the last bank that has them: what fits is taken, and the
            rest stays as the other banks have it.
    """
    chosen = {key: own for bank in banks for key, own in bank.to_slots().items()} | dict(sizes or {})
    whole = SlotBank(dict(sorted(chosen.items())))
    for bank in banks:
        for key in bank.sizes:
            _copy(bank, whole, key)
    return whole


@torch.no_grad()
def _copy(bank: SlotBank, whole: SlotBank, key: str) -> None:
    """Copy the tables of a kind of place: units by block and number, kernels by their centre, steps by depth."""
    own, other = bank.sizes[key], whole.sizes[key]
    if own.rank != other.rank:  # of factors only whole tables are alike
        return
    for step in range(other.steps):
        start = bank.first[key] + (
            round(step * (own.steps - 1) / (other.steps - 1)) if other.steps > 1 else 0
        )
        to = whole.first[key] + step
        _fit(bank.rows[start], whole.rows[to], own, other)
        if own.rank > 0:
            width = min(len(bank.columns[start]), len(whole.columns[to]))
            whole.columns[to][:width] = bank.columns[start][:width]
        whole.share[to] = bank.share[start]
        whole.gain[to] = bank.gain[start]


def _fit(table: Tensor, into: Tensor, own: SlotSize, other: SlotSize) -> None:
    """Overwrite what two row tables have in common."""

    def blocks(values: Tensor, size: SlotSize) -> Tensor:
        rows = (size.row_blocks, size.row_units)
        if size.rank != DENSE:
            return values.view(*rows, *values.shape[1:])
        return values.view(*rows, size.column_blocks, size.column_units, size.kernel, size.kernel)

    if own.rank == DENSE and table.shape != into.shape:  # only what is cut out has a size of its own
        into *= table.square().mean().sqrt() / into.square().mean().sqrt()
    source, target = blocks(table, own), blocks(into, other)
    for axis in range(source.ndim):
        count = min(source.shape[axis], target.shape[axis])
        kernel = own.rank == DENSE and axis >= 4
        starts = [view.shape[axis] // 2 - count // 2 if kernel else 0 for view in (source, target)]
        source, target = source.narrow(axis, starts[0], count), target.narrow(axis, starts[1], count)
    target.copy_(source)


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
