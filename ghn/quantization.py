"""Tables in eight or four bits: a step per row, so that checkpoints stay small and come back the same each time.

Those of four bits are compressed by a Huffman code, which takes about three bits a number: small ones are frequent.
"""

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

from ghn.checkpoints import Stored
from ghn.errors import CheckpointError

STEP = ".step"
"""Ending of the names of the steps, beside the tables that they belong to."""

QUANTIZED = ("I8", "U8")
"""Types, as files name them, of tables in eight and in four bits."""

LEVELS = {8: 127, 4: 7}
"""Of either sign, by bits."""

MOST_EXPANSION = 8
"""Bytes that a byte of a compressed table may stand for: none has a code shorter than a bit."""


def quantize(tensors: Mapping[str, Tensor], bits: Mapping[str, int]) -> dict[str, Tensor]:
    """Bring matrices to whole numbers, with a step of half precision per row.

    What ``restore`` makes of the result is quantized to the same numbers again.

    Args:
        tensors: By name.
        bits: 8 or 4 by name of the matrices that are quantized, 16 of what is stored in half precision; the others
            stay. Pairs of neighbours in a row of four bits are packed into a byte, and all bytes compressed, which
            leaves one axis.
    """
    stored: dict[str, Tensor] = {}
    for name, values in tensors.items():
        if name not in bits:
            stored[name] = values
            continue
        if bits[name] == 16:
            stored[name] = values.half()
            continue
        levels = LEVELS[bits[name]]
        step = (values.abs().amax(1) / levels).half()
        rounded = (values / step.float()[:, None]).round().clamp(-levels, levels)
        whole = torch.where(step[:, None] > 0, rounded, 0.0).to(torch.int8)
        stored[name] = whole if bits[name] == 8 else _compress(_pack(whole))
        stored[name + STEP] = step
    return stored


def is_table(name: str, stored: Mapping[str, Stored]) -> bool:
    """Whether a tensor among those of a file is quantized, with a step for each row."""
    entry, step = stored[name], stored.get(name + STEP)
    if step is None or entry.dtype not in QUANTIZED or len(step.shape) != 1:
        return False
    return _is_compressed(entry) or (len(entry.shape) == 2 and step.shape == entry.shape[:1])


def _is_compressed(entry: Stored) -> bool:
    return entry.dtype == "U8" and len(entry.shape) == 1


def fits(shape: tuple[int, ...], name: str, stored: Mapping[str, Stored]) -> bool:
    """Whether a tensor among those of a file can be one of some shape, as far as the file's header says."""
    entry = stored[name]
    if not is_table(name, stored):
        return entry.shape == shape
    if len(shape) != 2 or stored[name + STEP].shape != shape[:1]:
        return False
    packed = shape[0], (shape[1] + 1) // 2
    if _is_compressed(entry):
        return packed[0] * packed[1] <= MOST_EXPANSION * entry.shape[0]
    return entry.shape == (packed if entry.dtype == "U8" else shape)


def is_step(name: str, stored: Mapping[str, Stored]) -> bool:
    """Whether a tensor among those of a file holds the steps of a table."""
    table = name.removesuffix(STEP)
    return table != name and table in stored and is_table(table, stored)


def restore(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo ``quantize``, up to rounding.

    Raises:
        CheckpointError: If a compressed table is damaged.
    """
    restored = {}
    for name, values in tensors.items():
        if name.endswith(STEP):
            continue
        if (step := tensors.get(name + STEP)) is not None:
            if values.ndim == 1:
                values = _expand(values, name, len(step))
            values = _unpack(values) * step.float()[:, None]
        restored[name] = values
    return restored


def _compress(packed: Tensor) -> Tensor:
    coder = zlib.compressobj(zlib.Z_BEST_COMPRESSION, strategy=zlib.Z_HUFFMAN_ONLY)
    stream = coder.compress(packed.cpu().numpy().tobytes()) + coder.flush()
    return torch.frombuffer(bytearray(stream), dtype=torch.uint8)


def _expand(stream: Tensor, name: str, rows: int) -> Tensor:
    """Undo ``_compress``; whatever the stream says, it gets no more memory than ``MOST_EXPANSION`` allows."""
    coder = zlib.decompressobj()
    try:
        content = coder.decompress(stream.cpu().numpy().tobytes(), MOST_EXPANSION * len(stream) + 1)
    except zlib.error as error:
        raise CheckpointError(
            f"{name} is damaged ({error}); copy or download the checkpoint again"
        ) from error
    if not coder.eof or coder.unused_data or not rows or len(content) % rows:
        raise CheckpointError(f"{name} is damaged or incomplete; copy or download the checkpoint again")
    packed = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else stream.new_empty(0)
    return packed.view(rows, -1).to(stream.device)


def _pack(values: Tensor) -> Tensor:
    """Numbers from -7 to 7, two in a byte; zero is 8, and a lone last one has 0 beside it, which is no number."""
    coded = torch.nn.functional.pad((values + 8).to(torch.uint8), (0, values.shape[1] % 2))
    return coded[:, ::2] * 16 + coded[:, 1::2]


def _unpack(values: Tensor) -> Tensor:
    if values.dtype != torch.uint8:
        return values
    coded = torch.stack([values // 16, values % 16], dim=2).flatten(1)
    if coded.shape[1] and not coded[:, -1].any():
        coded = coded[:, :-1]
    return coded.to(torch.int8) - 8
