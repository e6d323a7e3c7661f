"""The data of a run: which, how much of it a network sees at once, and what says that it is the same as before."""

import hashlib

from ghn.data.load import load_images, load_text
from ghn.data.text import load_tokenizer
from ghn.errors import DataError
from ghn.metatrain.config import DataConfig
from ghn.tasks import ImageClassification, LanguageModeling, Task
from ghn.user_code import find, make


def load_tasks(config: DataConfig) -> dict[str, Task]:
    """Open the data of a run, by kind.

    Raises:
        DataError: If a source is missing, holds the other kind of data, or has nothing to validate on.
        ConfigError: If there is no tokenizer or task of a name.
    """
    tasks: dict[str, Task] = {}
    if config.images:
        images = load_images(config.images).fit(config.image_size, 3)
        tasks["images"] = ImageClassification(images, config.grey)
    if config.text:
        documents = load_text(config.text)
        tokens = documents.tokenize(
            load_tokenizer(config.tokenizer), config.sequence_length, config.text_tokens
        )
        tasks["text"] = LanguageModeling(tokens)
    if config.task:
        task = make(find(config.task, "task"), config.task, Task)
        tasks[task.kind] = task
    for task in tasks.values():
        if len(task.evaluation) < 2:
            raise DataError(
                f"{config.task or task.name} has {len(task.evaluation)} examples to validate on; expected 2 or more"
            )
    return tasks


def digest(task: Task) -> str:
    """Of the number of examples and sixteen of them: data that differ in others alone are not told apart."""
    count = len(task.train)
    some = task.train.__getitems__([count * part // 16 for part in range(16)])
    values = b"".join(column.contiguous().numpy().tobytes() for column in some)
    return f"{count}-{hashlib.sha256(values).hexdigest()[:16]}"
