"""Tables in eight and four bits."""

import zlib

import pytest
import torch

from ghn.checkpoints import Stored
from ghn.errors import CheckpointError
from ghn.quantization import STEP, fits, quantize, restore


@pytest.mark.parametrize(("bits", "error"), [(8, 0.5 / 127), (4, 0.5 / 7)])
@pytest.mark.parametrize("columns", [1, 4, 5])
def test_numbers_come_back_within_half_a_step_and_then_stay(bits: int, error: float, columns: int) -> None:
    values = torch.randn(6, columns, generator=torch.Generator().manual_seed(columns))
    values[2] = 0
    values[3] = 1e-12
    stored = quantize({"table": values, "other": values}, {"table": bits})
    assert stored["other"] is values
    assert stored["table"].element_size() == 1
    assert stored["table"].shape == (6, columns) if bits == 8 else stored["table"].ndim == 1
    again = restore(stored)["table"]
    assert again.shape == values.shape
    largest = values.abs().amax(1, keepdim=True)
    assert ((again - values).abs() <= (error + 1e-3) * largest + 1e-6).all()
    assert quantize({"table": again}, {"table": bits})["table"].equal(stored["table"])


def test_four_bits_take_three_and_a_half() -> None:
    values = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    stored = quantize({"table": values}, {"table": 4})
    assert len(stored["table"]) < values.numel() * 3.5 / 8
    zeros = quantize({"table": 0 * values}, {"table": 4})
    assert fits((200, 300), "table", _header(zeros)) and not restore(zeros)["table"].any()


def test_packed_tables_of_earlier_versions_are_read() -> None:
    values = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    stored = quantize({"table": values}, {"table": 4})
    packed = torch.frombuffer(
        bytearray(zlib.decompress(stored["table"].numpy().tobytes())), dtype=torch.uint8
    )
    earlier = stored | {"table": packed.view(6, 3)}
    assert restore(earlier)["table"].equal(restore(stored)["table"])
    assert fits((6, 5), "table", _header(earlier)) and not fits((6, 7), "table", _header(earlier))


def test_damaged_tables_are_refused_in_little_memory() -> None:
    values = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    stored = quantize({"table": values}, {"table": 4})
    stream = stored["table"]
    flipped = stream.clone()
    flipped[len(stream) // 2] ^= 1
    for wrong in (flipped, stream[:-9], stream[:0], torch.zeros_like(stream)):
        with pytest.raises(CheckpointError, match="table is damaged"):
            restore(stored | {"table": wrong})
    bomb = torch.frombuffer(bytearray(zlib.compress(bytes(200 * 2**16), 9)), dtype=torch.uint8)
    with pytest.raises(CheckpointError, match="table is damaged"):
        restore(stored | {"table": bomb})
    header = _header(stored)
    assert fits((200, 300), "table", header)
    assert not fits((201, 300), "table", header) and not fits((200, 10_000), "table", header)


def _header(stored: dict[str, torch.Tensor]) -> dict[str, Stored]:
    types = {torch.uint8: "U8", torch.int8: "I8", torch.float16: "F16", torch.float32: "F32"}
    assert set(stored) == {"table", "table" + STEP}
    return {name: Stored(types[value.dtype], tuple(value.shape)) for name, value in stored.items()}
