"""Where checkpoints are looked for, and what is refused."""

import pytest
import torch

from ghn import checkpoints
from ghn.checkpoints import resolve_checkpoint
from ghn.errors import CheckpointError


@pytest.fixture
def folder(tiny_ghn, tmp_path):
    tiny_ghn.save_pretrained(tmp_path / "my-net")
    return tmp_path / "my-net"


def test_folders_and_their_files(folder):
    assert resolve_checkpoint(folder) == str(folder)
    for file in ("model.safetensors", "config.json"):
        assert resolve_checkpoint(folder / file) == str(folder)


def test_shipped_ones_go_by_name(folder, monkeypatch):
    monkeypatch.setattr(checkpoints, "shipped_folders", lambda: [folder])
    assert resolve_checkpoint("my-net") == str(folder)
    monkeypatch.setattr(checkpoints, "DEFAULT_CHECKPOINT", "my-net")
    assert resolve_checkpoint(None) == str(folder)
    with pytest.raises(CheckpointError, match=r"no checkpoint at 'my-nett'.*Did you mean 'my-net'"):
        resolve_checkpoint("my-nett")


def test_hub_ids_are_left_to_the_hub():
    assert resolve_checkpoint("somebody/ghn-large") == "somebody/ghn-large"


def test_a_missing_folder_suggests_its_neighbours(folder):
    with pytest.raises(CheckpointError, match=r"Did you mean '.*my-net'"):
        resolve_checkpoint(folder.parent / "my-ned")


class Trap:
    """Runs code when unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a checkpoint was unpickled",))


@pytest.mark.parametrize("name", ["net.pt", "net.bin", "net.ckpt", "net.pkl"])
def test_pickles_are_refused_unread(tmp_path, name):
    torch.save(Trap(), tmp_path / name)
    with pytest.raises(CheckpointError, match=r"is a pickle.*refused"):
        resolve_checkpoint(tmp_path / name)


def test_a_folder_with_only_a_pickle_is_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save(Trap(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"no model\.safetensors \(pytorch_model\.bin is a pickle"):
        resolve_checkpoint(folder)


def test_incomplete_folders(folder):
    config = folder / "config.json"
    config.write_text("{half")
    with pytest.raises(CheckpointError, match="is not JSON"):
        resolve_checkpoint(folder)
    config.write_text('{"model_type": "gpt2"}')
    with pytest.raises(CheckpointError, match="not the configuration of a hypernetwork"):
        resolve_checkpoint(folder)
    config.unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        resolve_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        resolve_checkpoint(folder.parent)


def test_a_pickle_by_the_name_of_weights_is_refused_unread(folder):
    torch.save(Trap(), folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a pickle.*refused"):
        checkpoints.read_header(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a header of 0 bytes in a file of 0"),
        (b"\xff" * 8 + b"{}", "a header of 18,446,744,073,709,551,615 bytes in a file of 10"),
        (b"\x02" + bytes(7) + b"[]", "a header that is a list"),
        (b"\x0f" + bytes(7) + b'{"a":1, "a":2} ', "a name comes twice"),
    ],
)
def test_headers_are_read_with_suspicion(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"can't be loaded: .*{message}.*truncated, corrupted"):
        checkpoints.read_header(tmp_path / "file")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"decoder": 1, "decoder": 2}', " " * (checkpoints.MOST_BYTES + 1)]
)
def test_configurations_are_read_with_suspicion(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON.*copy or download"):
        resolve_checkpoint(folder)


def test_names_that_no_file_can_have():
    with pytest.raises(CheckpointError, match=r"no checkpoint at 'with.*zero'"):
        resolve_checkpoint("with\0zero")
    with pytest.raises(CheckpointError, match="no checkpoint can be read at 'longlong"):
        resolve_checkpoint("long" * 2000)


def test_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match="is a file; expected a folder"):
        resolve_checkpoint(tmp_path / "notes.txt")


def test_example_inputs_are_no_checkpoint():
    with pytest.raises(CheckpointError, match="got list; example inputs go into inputs="):
        resolve_checkpoint([1.0])
