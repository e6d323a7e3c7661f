"""Tables in files: read back, merged, and refused where they don't fit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ghn.cli import app
from ghn.console import run_app
from ghn.decoder.config import DENSE
from ghn.decoder.slots import SlotBank
from ghn.errors import CheckpointError
from ghn.hypernetwork import GHN
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.run import CHECKPOINT, metatrain
from ghn.metatrain.tables import TABLES, load_tables, merge

WITHOUT_SLOTS = Path(__file__).parents[2] / "checkpoints" / "ghn-small"


@pytest.fixture(scope="module")
def texts(tiny: Callable[..., MetaTrainConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    small = {"text_tokens": 2**15, "sequence_length": 16, "networks": 4, "updates": 2, "text_batch": 2}
    metatrain(tiny(images="", text="python-stdlib", space="", **small), folder)
    return folder


def test_texts_and_images_make_one_checkpoint(
    finished: tuple[Path, GHN], texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = finished
    run_app(app, ["merge", str(folder), str(texts / CHECKPOINT), "--out", str(tmp_path / "both")])
    assert "gpt2" in capsys.readouterr().out
    images, whole = load_tables(folder), load_tables(tmp_path / "both")
    assert set(whole.families) == {*images.families, "gpt2"}
    number = whole.names.index(load_tables(texts).names[0])
    assert whole.rows[number].shape == load_tables(texts).rows[0].shape


def test_a_run_keeps_what_it_begins_with_and_adds_its_own(
    finished: tuple[Path, GHN], texts: Path, tiny: Callable[..., MetaTrainConfig], tmp_path: Path
) -> None:
    folder, _ = finished
    bank = metatrain(tiny(updates=1), tmp_path, start=texts).decoder.bank
    assert set(bank.families) == {*load_tables(folder).families, "gpt2"}
    number, earlier = bank.names.index(load_tables(texts).names[0]), load_tables(texts)
    assert bank.rows[number].equal(earlier.rows[0])


def test_the_last_of_equal_slots_is_taken(finished: tuple[Path, GHN]) -> None:
    folder, _ = finished
    one, other = load_tables(folder), load_tables(folder)
    with torch.no_grad():
        other.rows[0].add_(1)
        other.gain.add_(2)
    whole = merge([one, other])
    assert whole.rows[0].equal(other.rows[0]) and whole.gain.equal(other.gain)


@pytest.mark.parametrize("size", [(1, 4, 1, 8, 1, 1, 2), (1, 8, 1, 4, 1, 1, 2), (1, 4, 1, 4, 1, 2, 2)])
def test_equal_slots_of_other_sizes_are_taken_whole(size: tuple[int, ...]) -> None:
    one, other = SlotBank({"a/1/linear": (1, 4, 1, 4, 1, 1, 2)}), SlotBank({"a/1/linear": size})
    whole = merge([one, other])
    for name, value in other.state_dict().items():
        assert whole.state_dict()[name].equal(value)


def test_slots_of_given_sizes_take_what_fits() -> None:
    one = SlotBank({"a/1/bias": (1, 4, 1, 1, 1, 2, 0), "a/1/conv": (1, 4, 2, 3, 3, 2, DENSE)})
    first, last = one.first["a/1/conv"], one.first["a/1/conv"] + 1
    with torch.no_grad():
        one.rows[0].fill_(7.0)
        one.rows[last].mul_(4.0)
    sizes = {"a/1/bias": (1, 2, 1, 1, 1, 1, 0), "a/1/conv": (1, 6, 1, 5, 5, 3, DENSE)}
    whole = merge([SlotBank(sizes), one], sizes)
    assert whole.to_slots() == {key: (*size, 0) for key, size in sizes.items()}
    assert whole.rows[0].equal(one.rows[0][:2])
    for step, start in ((0, first), (2, last)):
        before = one.rows[start].view(4, 2, 3, 3, 3)
        after = whole.rows[whole.first["a/1/conv"] + step].view(6, 1, 5, 5, 5)
        assert after[:4, :, :3, 1:4, 1:4].equal(before[:, :1])
    assert 3.0 < after[4:].square().mean().sqrt() < 5.0  # what is new is as large beside it as it was


def test_what_holds_no_tables_is_refused(finished: tuple[Path, GHN], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="without slots"):
        load_tables(WITHOUT_SLOTS)
    with pytest.raises(CheckpointError, match="doesn't exist"):
        load_tables(tmp_path / "nowhere")
    folder, _ = finished
    sizes = load_tables(folder).to_slots()
    tensors = load_file(folder / TABLES)
    key = next(key for key in sizes if sizes[key][6] == 0)
    larger = {**sizes, key: (sizes[key][0] + 1, *sizes[key][1:])}
    for metadata in ({}, {"sizes": "[1]"}, {"sizes": json.dumps(larger)}, {"sizes": '{"a/b": [1]}'}):
        save_file(tensors, tmp_path / "other.safetensors", metadata)
        with pytest.raises(CheckpointError, match=r"holds no tables that fit together: \S"):
            load_tables(tmp_path / "other.safetensors")
    (tmp_path / "half.safetensors").write_bytes((folder / TABLES).read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="fit together"):
        load_tables(tmp_path / "half.safetensors")


def test_tables_saved_before_there_were_gains_load(finished: tuple[Path, GHN], tmp_path: Path) -> None:
    folder, _ = finished
    bank, tensors = load_tables(folder), load_file(folder / TABLES)
    del tensors["gain"]
    save_file(tensors, tmp_path / TABLES, {"sizes": json.dumps(bank.to_slots())})
    assert load_tables(tmp_path).gain.equal(torch.zeros(len(bank.names)))
