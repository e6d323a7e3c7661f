"""Text: columns, tokens, windows, and the bytes that they stand for."""

import datasets
import pytest
import torch

from ghn.data.load import load_data
from ghn.data.text import Documents, TextSplit, load_tokenizer, python_stdlib
from ghn.errors import ConfigError, DataError


def test_windows_overlap_by_the_token_to_predict():
    split = TextSplit(torch.arange(11, dtype=torch.int32), 5, "training")
    (windows,) = split.__getitems__([0, 1])
    assert len(split) == 2
    assert windows.tolist() == [[0, 1, 2, 3, 4, 5], [5, 6, 7, 8, 9, 10]]
    assert windows.dtype == torch.int64


def test_bytes_of_any_script_are_counted():
    text = "naïve 語" * 50
    data = Documents(train=[text] * 3, evaluation=[text]).tokenize(load_tokenizer("bytes"), 16)
    tokens = len(text.encode()) + 1  # the end of the document is a token of its own
    assert data.bytes_per_token == pytest.approx(len(text.encode()) / tokens)
    assert len(data.evaluation.tokens) == tokens
    assert data.vocabulary == len(load_tokenizer("bytes"))


def test_reading_stops_when_there_is_enough():
    def endless():
        while True:
            yield "some text " * 10

    data = Documents(train=endless(), evaluation=["held out " * 20]).tokenize(
        load_tokenizer("bytes"), 8, enough=500
    )
    assert len(data.train.tokens) == 500


def test_library_source_is_the_same_each_time_and_held_out_files_are_not_trained_on():
    first, second = python_stdlib(), python_stdlib()
    held_out = [text for text, _ in zip(first.evaluation, range(5), strict=False)]
    assert held_out == [text for text, _ in zip(second.evaluation, range(5), strict=False)]
    train = set(first.train)
    assert sum(len(text.encode()) for text in train) == pytest.approx(4_000_000, rel=0.01)
    assert not [text for text in held_out if len(text) > 500 and text in train]  # stubs may be alike


@pytest.mark.parametrize("kind", ["txt", "parquet", "json"])
def test_folders_of_text(tmp_path, kind):
    for split in ("train", "validation"):
        lines = [f"{split} line {number}" for number in range(20)]
        if kind == "txt":
            (tmp_path / f"{split}.txt").write_text("\n".join(lines))
        else:
            rows = datasets.Dataset.from_dict({"source": ["x"] * 20, "text": lines})
            file = tmp_path / f"{split}.{kind}"
            rows.to_parquet(file) if kind == "parquet" else rows.to_json(file)
    documents = load_data(str(tmp_path))
    assert isinstance(documents, Documents)
    train, evaluation = list(documents.train), list(documents.evaluation)
    if kind == "txt":  # a file is a document
        assert "train line 3\ntrain line 4" in train[0]
        assert len(train) == len(evaluation) == 1 and evaluation[0].startswith("validation line 0\n")
    else:
        assert train[3] == "train line 3"
        assert evaluation[0] == "validation line 0"


def test_of_a_few_files_without_an_evaluation_split_the_end_of_each_is_held_out(tmp_path):
    texts = {name: "\n".join(f"{name} {number}" for number in range(100)) for name in ("one", "two")}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    documents = load_data(str(tmp_path))
    assert isinstance(documents, Documents)
    parts = list(zip(documents.train, documents.evaluation, strict=True))
    assert sorted(train + evaluation for train, evaluation in parts) == sorted(texts.values())
    assert all(0.89 < len(train) / len(train + evaluation) < 0.91 for train, evaluation in parts)


def test_long_documents_are_tokenized_in_pieces_with_one_end(monkeypatch):
    tokenizer = load_tokenizer("bytes")
    documents = Documents(train=["some words " * 30, ""], evaluation=["held out " * 20])
    whole = documents.tokenize(tokenizer, 8).train.tokens
    monkeypatch.setattr("ghn.data.text._PIECE", 7)
    assert torch.equal(documents.tokenize(tokenizer, 8).train.tokens, whole)
    assert (whole == tokenizer.eos_token_id).sum() == 2


def test_several_tokenizers_read_the_same_documents():
    source = python_stdlib()
    first, second = (source.tokenize(load_tokenizer("bytes"), 16, enough=1000) for _ in range(2))
    assert torch.equal(first.train.tokens, second.train.tokens)


def test_which_of_several_columns_is_unclear(tmp_path):
    rows = datasets.Dataset.from_dict({"question": ["a"] * 4, "answer": ["b"] * 4})
    rows.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"no text column; it has question \(string\), answer \(string\)"):
        load_data(str(tmp_path))


def test_too_little_text():
    with pytest.raises(DataError, match="smaller --sequence-length"):
        Documents(train=["short"], evaluation=["short"]).tokenize(load_tokenizer("bytes"), 64)


def test_unknown_tokenizer():
    with pytest.raises(ConfigError, match=r"no tokenizer at './nowhere'"):
        load_tokenizer("./nowhere")
