"""Images: layouts that are read, sizes they are brought to, messages for what is missing."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from ghn.data.images import RawImages, digits
from ghn.data.load import load_data
from ghn.errors import DataError


def picture(value: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    return Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8))


def write_parquet(folder, rows=10, splits=("train", "test"), columns=("img", "label")):
    features = datasets.Features(
        {columns[0]: datasets.Image(), columns[1]: datasets.ClassLabel(names=["dark", "light"])}
    )
    for split in splits:
        values = {
            columns[0]: [picture(200 * (row % 2)) for row in range(rows)],
            columns[1]: [row % 2 for row in range(rows)],
        }
        datasets.Dataset.from_dict(values, features=features).to_parquet(folder / f"{split}.parquet")


def test_parquet_folder(tmp_path):
    write_parquet(tmp_path)
    raw = load_data(str(tmp_path))
    assert isinstance(raw, RawImages)
    data = raw.fit(8, 3)
    assert (data.classes, len(data.train), len(data.evaluation)) == (2, 10, 10)
    images, labels = data.train.__getitems__([1, 0, 1])
    assert images.shape == (3, 3, 8, 8)
    assert images.dtype == torch.uint8
    assert images[:, 0, 0, 0].tolist() == [200, 0, 200]
    assert labels.tolist() == [1, 0, 1]


def test_folder_of_images_per_class(tmp_path):
    for split in ("train", "validation"):
        for name, value in (("cat", 10), ("dog", 250)):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(3):
                picture(value).save(folder / f"{index}.png")
    data = load_data(str(tmp_path)).fit(8, 3)
    images, labels = data.evaluation.__getitems__(range(6))
    assert data.classes == 2
    assert [250 if label else 10 for label in labels] == images[:, 0, 0, 0].tolist()


def test_without_other_split_a_tenth_is_held_out_the_same_each_time(tmp_path):
    write_parquet(tmp_path, rows=40, splits=("train",))
    first, second = (load_data(str(tmp_path)) for _ in range(2))
    assert (len(first.train_labels), len(first.evaluation_labels)) == (36, 4)
    assert torch.equal(first.train_labels, second.train_labels)


def test_grey_and_colour_as_the_model_wants():
    grey, colour = (digits().fit(16, channels) for channels in (1, 3))
    one, three = (data.train.__getitems__([5])[0] for data in (grey, colour))
    assert torch.equal(one.expand_as(three), three)
    assert len(grey.mean) == 1
    assert len(colour.mean) == 3


def test_middle_of_the_longer_side_is_kept(tmp_path):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 99
    raw = RawImages(
        train=_List([Image.fromarray(wide)] * 2),
        train_labels=torch.tensor([0, 1]),
        evaluation=_List([]),
        evaluation_labels=torch.tensor([]),
        classes=2,
        native_size=8,
    )
    assert (raw.fit(8, 3).train.__getitems__([0])[0] == 99).all()


def test_images_are_decoded_once():
    pictures = _List([picture(1)] * 4)
    split = RawImages(
        train=pictures,
        train_labels=torch.zeros(4, dtype=torch.long),
        evaluation=pictures,
        evaluation_labels=torch.zeros(4, dtype=torch.long),
        classes=1,
        native_size=10,
    ).fit(8, 3)
    seen = len(pictures.asked)
    split.train.__getitems__([2, 3])
    split.train.__getitems__([3, 2])
    assert len(pictures.asked) == seen  # the statistics had looked at all four
    split.evaluation.__getitems__([2])
    split.evaluation.__getitems__([1, 2])
    assert pictures.asked[seen:] == [2, 1]


def test_splits_of_digits_share_no_image():
    raw = digits()
    train = {picture.tobytes() for picture in raw.train[range(len(raw.train_labels))]}
    held_out = {picture.tobytes() for picture in raw.evaluation[range(len(raw.evaluation_labels))]}
    assert len(raw.train_labels) + len(raw.evaluation_labels) == 1797
    assert not train & held_out


def test_hidden_labels_are_refused(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    for split, label in (("train", 1), ("test", -1)):
        values = {"image": [picture(0)] * 2, "label": [0, label]}
        datasets.Dataset.from_dict(values, features=features).to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match="-1 marks hidden labels"):
        load_data(str(tmp_path))


def test_images_without_classes_are_refused(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    values = {"image": [picture(0)] * 4, "caption": ["a"] * 4}
    datasets.Dataset.from_dict(values, features=features).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"no class column.*caption \(string\)"):
        load_data(str(tmp_path))


class _List:
    def __init__(self, pictures):
        self.pictures = pictures
        self.asked = []

    def __getitem__(self, indices):
        self.asked += list(indices)
        return [self.pictures[index] for index in indices]
