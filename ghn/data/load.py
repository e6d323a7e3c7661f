"""One name, one data set: what it holds decides the task."""

from ghn.data import images, text
from ghn.data.source import describe, find_column, is_image, is_string, open_dataset
from ghn.errors import DataError

EMBEDDED = ("digits", "python-stdlib")
"""Data sets that every installation has offline."""


def load_data(source: str) -> images.RawImages | text.Documents:
    """Open a data set: images with classes if it has a column of images, else documents.

    Args:
        source: One of ``EMBEDDED``, a hub id (``ID:CONFIGURATION`` where there are several), or a folder.

    Raises:
        DataError: If it can't be opened or holds neither.
    """
    if source == "digits":
        return images.digits()
    if source == "python-stdlib":
        return text.python_stdlib()
    train, evaluation = open_dataset(source)
    if find_column(train.features, is_image):
        return images.from_splits(train, evaluation, source)
    if find_column(train.features, is_string):
        return text.from_splits(train, evaluation, source)
    raise DataError(
        f"data set {source!r} has neither an image nor a text column; it has {describe(train.features)}"
    )


def load_images(source: str) -> images.RawImages:
    """Open a data set of images.

    Raises:
        DataError: If it can't be opened or holds something else.
    """
    data = load_data(source)
    if not isinstance(data, images.RawImages):
        raise DataError(f"{source!r} holds text where images are asked for; give it as text instead")
    return data


def load_text(source: str) -> text.Documents:
    """Open a data set of text.

    Raises:
        DataError: If it can't be opened or holds something else.
    """
    data = load_data(source)
    if isinstance(data, images.RawImages):
        raise DataError(f"{source!r} holds images where text is asked for; give it as images instead")
    return data
