"""Checkpoints as they come damaged, or made to do harm; each is to be refused."""

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import stat
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ghn.decoder import DecoderConfig
from ghn.encoder import EncoderConfig
from ghn.errors import CheckpointError
from ghn.hypernetwork import FORMAT_VERSION, GHN, GHNConfig

Make = Callable[[Path], "Path | str"]
"""Damages a good checkpoint in a folder, and returns what is to be loaded."""

Change = Callable[..., Any]
"""Takes what is to be damaged, in place where it can."""

MARK = "code-was-run"
"""File that appears in the working folder if a pickle is ever loaded."""

SLOTS = {
    "cnn/1/conv trunk>trunk": [1, 8, 1, 4, 3, 2, 2],
    "cnn/1/bias at conv trunk>trunk": [1, 8, 1, 1, 1, 2, 0],
}

FIELDS = {
    "encoder": ("kind", "hidden", "layers", "heads", "sizes", "table"),
    "decoder": ("hidden", "rank", "base", "fan", "output", "scope", "max_trust", "max_gain"),
}

NO_SETTINGS: tuple[Any, ...] = (
    -1,
    0,
    10**9,
    10**400,
    -0.5,
    "3",
    "",
    None,
    [],
    {},
    True,
    float("nan"),
    float("inf"),
)
"""Values that no field may have."""


class Trap:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (MARK, "w"))


def save_good(folder: Path, slots: bool = False) -> None:
    """Write a small checkpoint with nothing wrong."""
    torch.manual_seed(0)
    decoder = DecoderConfig(hidden=16, rank=4, slots=SLOTS if slots else {})
    GHN(GHNConfig(encoder=EncoderConfig(hidden=16, layers=2, heads=2), decoder=decoder)).save_pretrained(
        folder
    )


@dataclass(frozen=True)
class Outcome:
    """What came of loading one checkpoint."""

    name: str
    loaded: bool
    error: str
    """Kind of the exception; empty if it was loaded."""
    message: str
    unchanged: bool
    """Whether the files, the working folder and PyTorch's random numbers are as before."""
    seconds: float

    @property
    def refused(self) -> bool:
        """Whether it was refused as it should be: by our own error, in one line, with nothing done."""
        return self.error == CheckpointError.__name__ and "\n" not in self.message and self.unchanged


def attempt(name: str, slots: bool, make: Make, good: dict[bool, Path], folder: Path) -> Outcome:
    """Damage a copy of a good checkpoint in a new folder, and try to load it.

    Args:
        name: Name of the case.
        slots: Which of the good ones to take.
        make: What damages it.
        good: Good checkpoints, without and with slots.
        folder: To be made; becomes the working folder while loading.
    """
    work = folder / "work"
    work.mkdir(parents=True)
    shutil.copytree(good[slots], folder / "net")
    checkpoint = make(folder / "net")
    before, random = _snapshot(folder), torch.get_rng_state()
    error = message = ""
    with contextlib.chdir(work), _as_nobody(name.endswith("can't be read")):
        start = time.perf_counter()
        try:
            GHN.from_pretrained(checkpoint)
        except CheckpointError as failure:
            error, message = CheckpointError.__name__, str(failure)
        except Exception as failure:  # what else may come is what we want to know
            error, message = type(failure).__name__, str(failure)
        seconds = time.perf_counter() - start
    unchanged = _snapshot(folder) == before and (not error or bool((torch.get_rng_state() == random).all()))
    return Outcome(name, not error, error, message, unchanged, seconds)


@contextlib.contextmanager
def _as_nobody(condition: bool) -> Iterator[None]:
    """Without the rights of root, for whom nothing is unreadable."""
    root = condition and os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def _snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Mode and content of everything in a folder."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        content = ""
        if stat.S_ISREG(mode):
            content = hashlib.blake2b(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(mode):
            content = str(path.readlink())
        entries[str(path)] = (mode, content)
    return entries


def sound_cases() -> Iterator[tuple[str, bool, Make]]:
    """Checkpoints that look odd and have to load: name, whether it has slots, and what makes it."""
    yield "as saved", False, lambda folder: folder
    yield "as saved, slots", True, lambda folder: folder
    yield "a file of it", False, lambda folder: folder / "model.safetensors"
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        yield f"all {dtype}", False, partial(_tensors, lambda tensors, dtype=dtype: _cast(tensors, dtype))
    yield "links to files elsewhere, as in the hub's cache", False, _link_files
    yield "a link to the folder", False, _link_folder
    yield "version 0", False, partial(_config, lambda values: values.pop("version"))


def bad_cases() -> Iterator[tuple[str, bool, Make]]:
    """Name, whether the checkpoint has slots, and what damages it; one after the other, each in a fresh folder."""
    yield from ((name, slots, make) for slots in (False, True) for name, make in _weights())
    for cases in (_headers, _tensor_cases, _configs, _places):
        yield from ((name, False, make) for name, make in cases())
    yield from ((name, True, make) for name, make in _slots())


def _weights() -> Iterator[tuple[str, Make]]:
    def cut(where: float | int, folder: Path) -> Path:
        content = (folder / "model.safetensors").read_bytes()
        header = 8 + struct.unpack("<Q", content[:8])[0]
        stop = where if isinstance(where, int) else int(header * where) if where <= 1 else None
        if stop is None:
            stop = header + int((len(content) - header) * (where - 1))
        (folder / "model.safetensors").write_bytes(content[:stop])
        return folder

    for where in (
        0,
        1,
        4,
        7,
        8,
        9,
        0.25,
        0.5,
        0.9,
        0.99,
        1.0,
        1.001,
        1.1,
        1.25,
        1.5,
        1.75,
        1.9,
        1.99,
        -100,
        -4,
        -1,
    ):
        yield f"weights cut at {where}", partial(cut, where)
    for count in (1, 8, 1000):
        yield (
            f"weights with {count} bytes more",
            partial(_bytes, lambda content, count=count: content + bytes(count)),
        )
    yield "weights of zeros", partial(_bytes, lambda content: bytes(len(content)))
    yield (
        "weights of random bytes",
        partial(_bytes, lambda content: bytes((37 * i * i + 11) % 251 for i in range(4096))),
    )
    yield "weights twice", partial(_bytes, lambda content: content + content)


def _headers() -> Iterator[tuple[str, Make]]:
    for length in (0, 1, 2, 2**24 + 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1):
        yield (
            f"header of {length} bytes",
            partial(_bytes, lambda content, length=length: struct.pack("<Q", length) + content[8:]),
        )
    for off in (-1, 1, 8):
        yield (
            f"header {off} bytes off",
            partial(
                _bytes,
                lambda content, off=off: (
                    struct.pack("<Q", struct.unpack("<Q", content[:8])[0] + off) + content[8:]
                ),
            ),
        )
    texts = {
        "empty": "", "an empty object": "{}", "a list": "[]", "null": "null", "text": '"weights"', "a number": "7",
        "not closed": '{"a": ', "deep": '{"a":' * 20000 + "1" + "}" * 20000, "deep lists": "[" * 100000,
        "spaces": " " * (2**24 + 1), "null bytes": "\0" * 64, "entries that are lists": '{"a": [1, 2]}',
    }  # fmt: skip
    for name, text in texts.items():
        yield f"header is {name}", partial(_raw_header, text.encode())
    yield "header is no UTF-8", partial(_raw_header, b'{"\xff\xfe": {}}')
    entries: dict[str, dict[str, Any]] = {
        "a negative size": {"shape": [-1]}, "a size that is a float": {"shape": [16.0]},
        "a size that is text": {"shape": ["16"]}, "a huge size": {"shape": [2**40]},
        "sizes that overflow": {"shape": [2**33, 2**33]}, "no shape": {"shape": None},
        "a shape that is text": {"shape": "16"}, "too many sizes": {"shape": [1] * 100_000},
        "an unknown type": {"dtype": "F7"}, "a type that is a number": {"dtype": 32}, "no type": {"dtype": None},
        "negative offsets": {"data_offsets": [-64, 0]},
        "offsets beyond the file": {"data_offsets": [2**40, 2**40 + 64]},
        "offsets that are text": {"data_offsets": "0-64"}, "one offset": {"data_offsets": [0]},
        "another's offsets": {"data_offsets": [0, 64]}, "offsets backwards": {"data_offsets": [64, 0]},
        "huge offsets": {"data_offsets": [0, 2**63]}, "no offsets": {"data_offsets": None},
    }  # fmt: skip
    for name, change in entries.items():
        yield (
            f"header with {name}",
            partial(_header, lambda values, change=change: values["encoder.norm.bias"].update(change)),
        )
    yield "header with a name twice", _name_twice
    yield (
        "header with metadata that are no text",
        partial(_header, lambda values: values.update(__metadata__={"a": 1})),
    )
    yield "header without the last entry", partial(_header, lambda values: values.popitem())


def _tensor_cases() -> Iterator[tuple[str, Make]]:
    name = "encoder.norm.bias"
    others = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64)
    for dtype in (*others, torch.float8_e4m3fn, torch.float8_e5m2):
        yield (
            f"one tensor of {dtype}",
            partial(_tensors, lambda tensors, dtype=dtype: _cast(tensors, dtype, name)),
        )
        yield f"all tensors of {dtype}", partial(_tensors, lambda tensors, dtype=dtype: _cast(tensors, dtype))
    shapes = {
        "longer": lambda t: torch.cat([t, t[:1]]), "shorter": lambda t: t[1:], "of none": lambda t: t[:0],
        "with a dimension more": lambda t: t[None], "a number": lambda t: t.reshape(-1)[0].clone(),
        "flat": lambda t: t.reshape(-1) if t.dim() > 1 else t.reshape(1, -1),
    }  # fmt: skip
    for key in (name, "encoder.kind.weight", "decoder.rows.embedding.weight"):
        for how, change in shapes.items():
            yield (
                f"{key} {how}",
                partial(
                    _tensors,
                    lambda tensors, key=key, change=change: tensors.update({key: change(tensors[key])}),
                ),
            )
    yield (
        "a matrix transposed",
        partial(
            _tensors,
            lambda tensors: tensors.update({"encoder.features.weight": tensors["encoder.features.weight"].T}),
        ),
    )
    for key in (name, "encoder.kind.weight", "decoder.rows.out.weight", "decoder.statistics.net.0.bias"):
        yield f"without {key}", partial(_tensors, lambda tensors, key=key: tensors.pop(key))
        yield (
            f"{key} renamed",
            partial(_tensors, lambda tensors, key=key: tensors.update({key + "_": tensors.pop(key)})),
        )
    yield "without any tensor", partial(_tensors, lambda tensors: tensors.clear())
    yield "with a tensor more", partial(_tensors, lambda tensors: tensors.update(more=torch.zeros(3)))
    yield (
        "with steps of no table",
        partial(_tensors, lambda tensors: tensors.update({name + ".step": torch.ones(16)})),
    )
    yield "with a layer more", partial(_tensors, _layer_more)
    for value in (float("nan"), float("inf"), -float("inf")):
        for key, place in ((name, 0), ("encoder.kind.weight", -1), ("decoder.rows.out.weight", 7)):
            yield (
                f"{value} in {key}",
                partial(
                    _tensors,
                    lambda tensors, key=key, place=place, value=value: (
                        tensors[key].view(-1)[place].fill_(value)
                    ),
                ),
            )
    yield (
        "all NaN",
        partial(_tensors, lambda tensors: [tensor.fill_(float("nan")) for tensor in tensors.values()]),
    )
    yield "too large for single precision", partial(_tensors, _too_large)


def _configs() -> Iterator[tuple[str, Make]]:
    for part, names in FIELDS.items():
        for name in names:
            for value in NO_SETTINGS:
                # NaN and infinity are JSON to Python.
                yield (
                    f"{part}.{name} is {repr(value)[:20]}",
                    partial(
                        _config,
                        lambda values, part=part, name=name, value=value: values[part].update({name: value}),
                    ),
                )
    for value in (
        -1,
        FORMAT_VERSION + 1,
        10**9,
        1.5,
        "2",
        "newest",
        None,
        [],
        {},
        True,
        float("nan"),
        float("inf"),
    ):
        yield f"version {value!r}", partial(_config, lambda values, value=value: values.update(version=value))
    for layers in (1, 3, 1000, 1_000_000):
        yield (
            f"{layers} layers",
            partial(_config, lambda values, layers=layers: values["encoder"].update(layers=layers)),
        )
    for part in FIELDS:
        yield (
            f"unknown setting of {part}",
            partial(_config, lambda values, part=part: values[part].update(novelty=1)),
        )
        for value in (None, [], "", 3, True, [["hidden", 16]]):
            yield (
                f"{part} is {value!r}",
                partial(_config, lambda values, part=part, value=value: values.update({part: value})),
            )
    yield (
        "a table instead of an encoder",
        partial(_config, lambda values: values["encoder"].update(kind="table")),
    )
    yield "sizes of another", partial(_config, lambda values: values["encoder"].update(hidden=32))
    yield "slots without weights", partial(_config, lambda values: values["decoder"].update(slots=SLOTS))
    yield "unknown setting", partial(_config, lambda values: values.update(novelty=1))
    yield "no decoder", partial(_config, lambda values: values.pop("decoder"))
    for where in (0, 1, 10, 0.25, 0.5, 0.75, 0.9, -3):
        yield (
            f"configuration cut at {where}",
            partial(
                _config_text,
                lambda text, where=where: text[: where if isinstance(where, int) else int(len(text) * where)],
            ),
        )
    texts = {
        "an empty object": "{}", "a list": "[]", "null": "null", "text": '"config"', "a number": "7", "spaces": "  \n",
        "another's": '{"model_type": "gpt2", "n_layer": 12}', "Python": "{'version': 1}",
        "yaml": "version: 1\nencoder:\n",
        "deep": "[" * 100_000, "deep objects": '{"decoder":' * 50_000, "two objects": "{}{}",
        "large": " " * (2**24 + 1),
        "a page": "<!DOCTYPE html><html>404</html>",
        "a pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    }  # fmt: skip
    for name, text in texts.items():
        yield f"configuration is {name}", partial(_config_text, lambda _, text=text: text)
    yield (
        "configuration with a name twice",
        partial(_config_text, lambda text: text.replace('"decoder"', '"decoder": {}, "decoder"')),
    )
    yield (
        "configuration with a number of 5,000 digits",
        partial(_config_text, lambda text: text.replace('"hidden": 16', '"hidden": 1' + "0" * 5000)),
    )
    yield "configuration with a comment", partial(_config_text, lambda text: "// of ours\n" + text)
    for encoding in ("utf-16", "utf-32", "utf-8-sig"):
        yield (
            f"configuration in {encoding}",
            partial(_config_bytes, lambda text, encoding=encoding: text.encode(encoding)),
        )
    yield "configuration of zeros", partial(_config_bytes, lambda text: bytes(300))
    yield "configuration is a pickle", partial(_config_bytes, lambda text: pickle.dumps(Trap()))


def _slots() -> Iterator[tuple[str, Make]]:
    key = next(iter(SLOTS))
    sizes = SLOTS[key]
    value: Any
    for number in range(7):
        for value in (-1, 0, 2**21, 10**30, sizes[number] + 2, 1.0, "3", None, True, [1]):
            if (number, value) == (6, 0):  # a vector; below
                continue
            numbers: list[Any] = [*sizes[:number], value, *sizes[number + 1 :]]
            yield (
                f"slots: number {number} is {repr(value)[:20]}",
                partial(
                    _config, lambda values, numbers=numbers: values["decoder"]["slots"].update({key: numbers})
                ),
            )
    wrong = [[], [1], sizes[:6], [*sizes, -1], [*sizes, 2**21], [*sizes, 0, 1]]
    for value in (*wrong, "1184322", 7, None, {"row_blocks": 1}):
        yield (
            f"slots: sizes {value!r}",
            partial(_config, lambda values, value=value: values["decoder"]["slots"].update({key: value})),
        )
    for value in ([], "none", None, 3, [SLOTS], True):
        yield (
            f"slots are {repr(value)[:20]}",
            partial(_config, lambda values, value=value: values["decoder"].update(slots=value)),
        )
    yield (
        "slots: a vector for a matrix",
        partial(_config, lambda values: values["decoder"]["slots"].update({key: [*sizes[:6], 0]})),
    )
    yield (
        "slots: one more",
        partial(_config, lambda values: values["decoder"]["slots"].update({"cnn/2/x": sizes})),
    )
    yield "slots: one less", partial(_config, lambda values: values["decoder"]["slots"].pop(key))
    yield "slots: none", partial(_config, lambda values: values["decoder"].pop("slots"))
    yield (
        "slots: 100,000",
        partial(
            _config,
            lambda values: values["decoder"]["slots"].update({f"cnn/2/{i}": sizes for i in range(100_000)}),
        ),
    )
    table, step = "decoder.bank.rows.0", "decoder.bank.rows.0.step"
    for how, change in {
        "without steps": lambda tensors: tensors.pop(step),
        "without a table": lambda tensors: tensors.pop(table),
        "steps that are integers": lambda tensors: tensors.update(
            {step: torch.ones_like(tensors[step], dtype=torch.int64)}
        ),
        "steps shorter": lambda tensors: tensors.update({step: tensors[step][1:]}),
        "steps a matrix": lambda tensors: tensors.update({step: tensors[step][:, None]}),
        "steps of NaN": lambda tensors: tensors[step][0].fill_(float("nan")),
        "steps of infinity": lambda tensors: tensors[step][-1].fill_(float("inf")),
        "a table of wide integers": lambda tensors: tensors.update({table: tensors[table].to(torch.int16)}),
        "a table of unsigned integers": lambda tensors: tensors.update(
            {table: tensors[table].to(torch.uint8)}
        ),
        "a table with a row less": lambda tensors: tensors.update(
            {table: tensors[table][1:], step: tensors[step][1:]}
        ),
        "steps of steps": lambda tensors: tensors.update({step + ".step": tensors[step].clone()}),
        "a vector of integers": lambda tensors: tensors.update(
            {"decoder.bank.share": tensors["decoder.bank.share"].to(torch.int8)}
        ),
    }.items():
        yield f"slots: {how}", partial(_tensors, change)


def _places() -> Iterator[tuple[str, Make]]:
    for name in ("model.safetensors", "config.json"):
        yield f"no {name}", partial(_replace, name, None)
        yield f"{name} is a folder", partial(_replace, name, lambda path: path.mkdir())
        yield f"{name} is a link to itself", partial(_replace, name, lambda path: path.symlink_to(path.name))
        yield (
            f"{name} is a link to nothing",
            partial(_replace, name, lambda path: path.symlink_to("nowhere")),
        )
        yield (
            f"{name} is a link to a device",
            partial(_replace, name, lambda path: path.symlink_to("/dev/zero")),
        )
        yield (
            f"{name} is a link to the other file",
            partial(
                _replace,
                name,
                lambda path: path.symlink_to(({"model.safetensors", "config.json"} - {path.name}).pop()),
            ),
        )
        yield f"{name} is a pipe", partial(_replace, name, lambda path: os.mkfifo(path))
        yield f"{name} is empty", partial(_replace, name, lambda path: path.touch())
        yield f"{name} can't be read", partial(_unreadable, name)
    yield "the folder can't be read", partial(_unreadable, ".")
    for how, write in {
        "a pickle": lambda path: path.write_bytes(pickle.dumps(Trap())),
        "an old pickle": lambda path: path.write_bytes(pickle.dumps(Trap(), protocol=0)),
        "torch's file": lambda path: torch.save(Trap(), path),
        "torch's old file": lambda path: torch.save(Trap(), path, _use_new_zipfile_serialization=False),
        "a link to a pickle": lambda path: (
            path.with_suffix(".bin").write_bytes(pickle.dumps(Trap())),
            path.symlink_to(path.with_suffix(".bin")),
        ),
    }.items():
        yield f"weights are {how}", partial(_replace, "model.safetensors", write)
    for name in ("pytorch_model.bin", "net.pt", "net.ckpt", "net.pkl"):
        yield f"only {name}", partial(_only_pickle, name, False)
        yield f"the file {name}", partial(_only_pickle, name, True)
    yield "an empty folder", _empty
    yield "a folder that isn't there", lambda folder: folder / "not" / "there"
    yield "a link to nothing", _link_to_nothing
    yield "a text file", _text_file
    for name in (
        "with\0zero",
        "long" * 2000,
        "https://example.org/a/b",
        "../../x/y",
        "a/b/c",
        "/",
        ".",
        "nobody",
    ):
        yield f"named {name[:20]!r}", partial(_name_alone, name)


def _bytes(change: Change, folder: Path) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(change(path.read_bytes()))
    return folder


def _raw_header(header: bytes, folder: Path) -> Path:
    content = (folder / "model.safetensors").read_bytes()
    data = content[8 + struct.unpack("<Q", content[:8])[0] :]
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    return folder


def _header(change: Change, folder: Path) -> Path:
    content = (folder / "model.safetensors").read_bytes()
    values = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    change(values)
    return _raw_header(json.dumps(values).encode(), folder)


def _name_twice(folder: Path) -> Path:
    content = (folder / "model.safetensors").read_bytes()
    text = content[8 : 8 + struct.unpack("<Q", content[:8])[0]].decode().strip()
    entry = json.dumps(json.loads(text)["encoder.norm.bias"])
    return _raw_header(f'{text[:-1]}, "encoder.norm.bias": {entry}}}'.encode(), folder)


def _tensors(change: Change, folder: Path) -> Path:
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: value.clone() for name, value in tensors.items()}
    change(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors")
    return folder


def _cast(tensors: dict[str, Tensor], dtype: torch.dtype, name: str | None = None) -> None:
    for key in [name] if name else list(tensors):
        tensors[key] = tensors[key].to(dtype)


def _layer_more(tensors: dict[str, Tensor]) -> None:
    last = {name: value for name, value in tensors.items() if name.startswith("encoder.layers.1.")}
    tensors.update({name.replace(".1.", ".2.", 1): value.clone() for name, value in last.items()})


def _too_large(tensors: dict[str, Tensor]) -> None:
    tensors["encoder.norm.bias"] = tensors["encoder.norm.bias"].double() + 1e300


def _config(change: Change, folder: Path) -> Path:
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def _config_text(change: Change, folder: Path) -> Path:
    return _config_bytes(lambda text: change(text).encode(), folder)


def _config_bytes(change: Change, folder: Path) -> Path:
    path = folder / "config.json"
    path.write_bytes(change(path.read_text()))
    return folder


def _replace(name: str, write: Callable[[Path], object] | None, folder: Path) -> Path:
    (folder / name).unlink()
    if write is not None:
        write(folder / name)
    return folder


def _unreadable(name: str, folder: Path) -> Path:
    (folder / name).chmod(0)
    return folder


def _only_pickle(name: str, itself: bool, folder: Path) -> Path:
    for child in folder.iterdir():
        child.unlink()
    torch.save(Trap(), folder / name)
    return folder / name if itself else folder


def _name_alone(name: str, folder: Path) -> str:
    return name


def _empty(folder: Path) -> Path:
    for child in folder.iterdir():
        child.unlink()
    return folder


def _link_files(folder: Path) -> Path:
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for child in list(folder.iterdir()):
        shutil.move(child, blobs / child.name)
        child.symlink_to(Path("..") / "blobs" / child.name)
    return folder


def _link_folder(folder: Path) -> Path:
    (folder.parent / "link").symlink_to(folder)
    return folder.parent / "link"


def _link_to_nothing(folder: Path) -> Path:
    (folder.parent / "link").symlink_to("nowhere")
    return folder.parent / "link"


def _text_file(folder: Path) -> Path:
    (folder / "notes.txt").write_text("hello")
    return folder / "notes.txt"
