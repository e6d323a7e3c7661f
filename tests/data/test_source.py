"""Opening a data set: messages for what can't be opened, and which split is which."""

import datasets
import pytest

from ghn.data.load import load_data
from ghn.data.source import open_dataset
from ghn.errors import DataError


def rows(count: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": [f"row {index}" for index in range(count)]})


def test_missing_folder_is_named():
    with pytest.raises(DataError, match=r"'./no/such/folder': the folder does not exist"):
        load_data("./no/such/folder")


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match="can't be opened"):
        load_data(str(tmp_path))


def test_file_instead_of_folder(tmp_path):
    rows(3).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match="give the folder that holds it"):
        load_data(str(tmp_path / "train.parquet"))


def test_neither_images_nor_text(tmp_path):
    datasets.Dataset.from_dict({"x": [1.0, 2.0]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"neither an image nor a text column; it has x \(float64\)"):
        load_data(str(tmp_path))


def test_validation_is_preferred_to_test(tmp_path):
    for split, count in (("train", 5), ("test", 3), ("validation", 4)):
        rows(count).to_parquet(tmp_path / f"{split}.parquet")
    train, evaluation = open_dataset(str(tmp_path))
    assert (len(train), len(evaluation)) == (5, 4)


def test_what_save_to_disk_wrote(tmp_path):
    datasets.DatasetDict(train=rows(5), test=rows(2)).save_to_disk(tmp_path / "saved")
    train, evaluation = open_dataset(str(tmp_path / "saved"))
    assert (len(train), len(evaluation)) == (5, 2)
