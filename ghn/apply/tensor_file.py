"""Safetensors files written piece by piece, in any order, without holding a tensor in memory."""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ghn.errors import PredictionError

TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
"""Names of types in the format, https://huggingface.co/docs/safetensors."""

MAX_SHARD_BYTES = 5 * 10**9
"""Size from which the tensors of a folder go into several files."""


@dataclass(frozen=True)
class Form:
    """Shape and type of a tensor that is to be written."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class TensorFile:
    """One file; its header is written last, so that nothing reads it as long as it isn't complete."""

    def __init__(self, path: Path, forms: Mapping[str, Form], metadata: Mapping[str, str]) -> None:
        self._forms, self._start = dict(forms), {}
        header: dict[str, object] = {"__metadata__": dict(metadata)}
        offset = 0
        # The widest types first, as safetensors itself does, so that every tensor is aligned.
        for name in sorted(forms, key=lambda name: -forms[name].dtype.itemsize):
            form = forms[name]
            if form.dtype not in TYPES:
                raise PredictionError(f"{name!r} has type {form.dtype}, which safetensors can't hold")
            stop = offset + form.nbytes
            header[name] = {
                "dtype": TYPES[form.dtype],
                "shape": list(form.shape),
                "data_offsets": [offset, stop],
            }
            self._start[name], offset = offset, stop
        text = json.dumps(header, separators=(",", ":")).encode()
        self._header = text + b" " * (-len(text) % 8)
        self._data = 8 + len(self._header)
        self._file = path.open("wb")
        _reserve(self._file.fileno(), self._data + offset)

    def write(self, name: str, values: Tensor, position: int = 0) -> None:
        """Write consecutive elements of a tensor.

        Args:
            name: Name of the tensor.
            values: The elements, of any shape; converted to the tensor's type.
            position: Position of the first one in the tensor, in memory order.
        """
        form = self._forms[name]
        flat = values.detach().to(device="cpu", dtype=form.dtype).contiguous().reshape(-1)
        self._file.seek(self._data + self._start[name] + position * form.dtype.itemsize)
        if flat.numel():
            self._file.write(flat.view(torch.uint8).numpy().data)

    def close(self, complete: bool) -> None:
        """Write the header if everything was written, and close the file."""
        with self._file:
            if complete:
                self._file.seek(0)
                self._file.write(len(self._header).to_bytes(8, "little") + self._header)


def _reserve(file: int, size: int) -> None:
    """Take the space now, so that a full disk is noticed before any work is done."""
    try:
        os.posix_fallocate(file, 0, size)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, f"{error.strerror}, and {size / 1e9:.3g} GB are needed") from error
        os.truncate(file, size)  # not every file system can


@contextmanager
def open_file(
    path: Path, forms: Mapping[str, Form], metadata: Mapping[str, str]
) -> Iterator[dict[str, TensorFile]]:
    """One file with all tensors; gives, by the name of each tensor, the file it is in."""
    with _open({path: forms}, metadata) as files:
        yield files


@contextmanager
def open_folder(
    folder: Path, forms: Mapping[str, Form], max_shard_bytes: int = MAX_SHARD_BYTES
) -> Iterator[dict[str, TensorFile]]:
    """Files of limited size, with an index if they are several, as transformers reads them.

    Gives, by the name of each tensor, the file it is in.
    """
    shards: list[dict[str, Form]] = [{}]
    for name, form in forms.items():
        if shards[-1] and sum(other.nbytes for other in shards[-1].values()) + form.nbytes > max_shard_bytes:
            shards.append({})
        shards[-1][name] = form
    if len(shards) == 1:
        names = ["model.safetensors"]
    else:
        names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    with _open(
        {folder / name: shard for name, shard in zip(names, shards, strict=True)}, {"format": "pt"}
    ) as files:
        yield files
    if len(shards) > 1:
        sizes = {
            "total_parameters": sum(torch.Size(form.shape).numel() for form in forms.values()),
            "total_size": sum(form.nbytes for form in forms.values()),
        }
        homes = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        index = json.dumps({"metadata": sizes, "weight_map": homes}, indent=2) + "\n"
        (folder / "model.safetensors.index.json").write_text(index)


@contextmanager
def _open(
    contents: Mapping[Path, Mapping[str, Form]], metadata: Mapping[str, str]
) -> Iterator[dict[str, TensorFile]]:
    complete = False
    with ExitStack() as stack:
        files: dict[str, TensorFile] = {}
        for path, forms in contents.items():
            file = TensorFile(path, forms, metadata)
            stack.callback(lambda file=file: file.close(complete))  # type: ignore[misc]
            files |= dict.fromkeys(forms, file)
        yield files
        complete = True
