"""The task that a configuration means: the data set decides, and the model must fit."""

from typing import Any

from ghn.data.images import RawImages
from ghn.data.load import load_data
from ghn.errors import ConfigError
from ghn.finetune.config import BudgetConfig, CompareConfig, TaskConfig
from ghn.finetune.image_task import ImageTask
from ghn.finetune.own_task import OwnTask
from ghn.finetune.task import ModelTask
from ghn.finetune.text_task import LENGTH, TextTask
from ghn.models import load_model
from ghn.tasks import Task
from ghn.user_code import find, make

VISION_MODEL = "timm:test_vit"
"""A vision transformer of 0.3 million parameters: a comparison takes a minute on two cores."""

LANGUAGE_MODEL = "hf:gpt2"
LANGUAGE_MODEL_KWARGS = {"n_layer": 4, "n_head": 4, "n_embd": 128}
"""0.8 million parameters beside the positions, for the same reason."""

IMAGES_PER_STEP = 64
SEQUENCES_PER_STEP = 16
STEPS = 100


def make_task(config: CompareConfig) -> ModelTask:
    """Open the data set and fit the model to it.

    Raises:
        DataError: If the data set can't be used.
        ModelError: If the model can't be built.
        ConfigError: If model, data set and options don't go together.
    """
    if config.task:
        _refuse(
            config,
            config.task,
            "has data of its own",
            ("dataset", "image_size", "sequence_length", "tokenizer"),
        )
        task = make(find(config.task, "task"), config.task, Task)
        model = config.model or (VISION_MODEL if task.kind == "images" else LANGUAGE_MODEL)
        return OwnTask(task, config.task, model, _arguments(config, task.kind))
    dataset = config.dataset or _dataset_for(config)
    data = load_data(dataset)
    if isinstance(data, RawImages):
        _refuse(config, dataset, "holds images", ("sequence_length", "tokenizer"))
        arguments = _arguments(config, "images")
        return ImageTask(data, dataset, config.model or VISION_MODEL, arguments, config.image_size)
    _refuse(config, dataset, "holds text", ("image_size",))
    enough = None if config.epochs else (config.steps or STEPS) * (config.batch_size or SEQUENCES_PER_STEP)
    return TextTask(
        data,
        dataset,
        config.model or LANGUAGE_MODEL,
        _arguments(config, "text"),
        config.tokenizer or "bytes",
        config.sequence_length or LENGTH,
        enough,
    )


def batches_of(config: BudgetConfig, task: ModelTask) -> tuple[int, int]:
    """Steps of a run, and examples per step."""
    batch_size = config.batch_size or (IMAGES_PER_STEP if task.kind == "images" else SEQUENCES_PER_STEP)
    size = min(batch_size, len(task.train))
    if config.epochs is None:
        return config.steps or STEPS, size
    return max(1, round(config.epochs * (len(task.train) // size))), size


def _arguments(config: TaskConfig, kind: str) -> dict[str, Any]:
    """The user's arguments of the model, over those of the default one."""
    default = LANGUAGE_MODEL_KWARGS if kind == "text" and config.model is None else {}
    return {**default, **config.model_kwargs}


def _dataset_for(config: TaskConfig) -> str:
    if config.model is None:
        return "digits"
    model = load_model(config.model, device="meta", **config.model_kwargs)
    return "python-stdlib" if getattr(model, "main_input_name", None) == "input_ids" else "digits"


def _refuse(config: TaskConfig, dataset: str, holds: str, options: tuple[str, ...]) -> None:
    for option in options:
        if getattr(config, option) is not None:
            raise ConfigError(
                f"--{option.replace('_', '-')} has no meaning for {dataset!r}, which {holds}; leave it out"
            )
