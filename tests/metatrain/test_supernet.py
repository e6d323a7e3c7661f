"""Training of slots: the same run whether it was interrupted or not, and what it leaves can be used."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

import ghn
from ghn.decoder.slots import SlotBank
from ghn.errors import CheckpointError, ConfigError
from ghn.hypernetwork import GHN
from ghn.metatrain.supernet import (
    LOG,
    PROGRESS,
    STATE,
    SupernetConfig,
    hypernetwork,
    load_tables,
    merge,
    save_tables,
    train_supernet,
)

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "ghn-small"
SETTINGS = SupernetConfig(
    images="digits",
    image_size=8,
    networks=6,
    updates=4,
    warmup=1,
    image_batch=16,
    validate_every=2,
    validation_networks=1,
    full_every=0,
    rank=4,
)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SlotBank]:
    folder = tmp_path_factory.mktemp("run")
    return folder, train_supernet(SETTINGS, folder, progress=quiet)


def rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_log_counts_target_images_and_validates_every_family(finished: tuple[Path, SlotBank]) -> None:
    folder, _ = finished
    trained = [row for row in rows(folder) if "loss" in row]
    assert [row["update"] for row in trained] == [1, 2, 3, 4]
    assert trained[-1]["seen"] == 4 * 2 * 16
    validated = [row for row in rows(folder) if "validation" in row]
    assert [row["update"] for row in validated] == [2, 4]
    for row in validated:
        assert isinstance(row["validation"], dict)
        assert {"resnet", "vit", "resnetv2"} <= set(row["validation"])
        assert all(0 <= metric <= 1 for metric in row["validation"].values())
    assert (folder / PROGRESS).stat().st_size > 10_000


def test_interrupted_run_goes_on_to_the_last_bit(finished: tuple[Path, SlotBank], tmp_path: Path) -> None:
    folder, whole = finished
    for _ in range(4):
        bank = train_supernet(SETTINGS, tmp_path, max_seconds=0, progress=quiet)  # one update each
    for (name, ours), theirs in zip(whole.state_dict().items(), bank.state_dict().values(), strict=True):
        assert ours.equal(theirs), name

    def losses(path: Path) -> list[object]:
        return [row["loss"] for row in rows(path) if "loss" in row]

    assert losses(folder) == losses(tmp_path)


def test_other_settings_are_refused_and_nothing_is_lost(finished: tuple[Path, SlotBank]) -> None:
    folder, _ = finished
    before = (folder / STATE).read_bytes()
    with pytest.raises(ConfigError, match=r"other settings \(rank\); choose another output folder"):
        train_supernet(replace(SETTINGS, rank=5), folder, progress=quiet)
    assert (folder / STATE).read_bytes() == before


def test_tables_begin_another_run(finished: tuple[Path, SlotBank], tmp_path: Path) -> None:
    folder, bank = finished
    save_tables(bank, tmp_path / "tables.safetensors")
    after = train_supernet(
        replace(SETTINGS, updates=1, seed=1),
        tmp_path / "run",
        start=tmp_path / "tables.safetensors",
        progress=quiet,
    )
    assert after.names == bank.names
    hypernetwork(bank).save_pretrained(tmp_path / "checkpoint")
    assert load_tables(tmp_path / "checkpoint").names == bank.names
    with pytest.raises(CheckpointError, match="without slots"):
        load_tables(CHECKPOINT)
    with pytest.raises(CheckpointError, match="doesn't exist"):
        load_tables(tmp_path / "nowhere")
    assert load_tables(folder / "tables.safetensors").names == bank.names


def test_texts_and_images_make_one_checkpoint(finished: tuple[Path, SlotBank], tmp_path: Path) -> None:
    _, images = finished
    settings = replace(
        SETTINGS,
        images="",
        text="python-stdlib",
        text_tokens=2**15,
        sequence_length=16,
        networks=4,
        updates=2,
        text_batch=2,
    )
    texts = train_supernet(settings, tmp_path / "texts", progress=quiet)
    whole = merge([images, texts])
    assert set(whole.families) == {*images.families, "gpt2"}
    number, other = whole.names.index(texts.names[0]), 0
    assert whole.rows[number].equal(texts.rows[other])
    hypernetwork(whole).save_pretrained(tmp_path / "checkpoint")
    net = GHN.from_pretrained(tmp_path / "checkpoint")
    model = timm.create_model("resnet18", layers=[1, 1, 1, 1], channels=[8, 16, 32, 64], num_classes=10)
    report = ghn.init_(model, str(tmp_path / "checkpoint"), torch.zeros(2, 3, 8, 8))
    assert all(torch.isfinite(values).all() for values in model.parameters())
    assert net.fingerprint() == GHN.from_pretrained(tmp_path / "checkpoint").fingerprint()
    assert report
