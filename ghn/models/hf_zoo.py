"""Hugging Face transformers: any architecture from its configuration alone."""

import functools
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto import modeling_auto

from ghn.errors import ModelError, did_you_mean
from ghn.models.arguments import call_factory, one_line
from ghn.models.hf_families import family
from ghn.models.hf_inputs import example_inputs, further_inputs

__all__ = ["build", "example_inputs", "further_inputs", "heads", "is_repaired", "names", "shallow"]

TASKS: dict[str, tuple[str, ...]] = {
    "image-classification": ("AutoModelForImageClassification",),
    "language-modeling": ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForMaskedLM"),
}
"""Heads of a task; the first that the type has wins."""

_DEFAULT_HEADS = (
    "AutoModelForMaskedLM",  # before CausalLM: the types that have both are bidirectional encoders
    "AutoModelForCausalLM",
    "AutoModelForImageClassification",
    "AutoModelForMultimodalLM",
    "AutoModel",
)
SHALLOW = 2
"""Layers of a model that is reduced."""

_NOT_OVERRIDES = ("task", "num_classes")


def names() -> list[str]:
    """Model types that have a model class."""
    return [name for name in CONFIG_MAPPING if name in modeling_auto.MODEL_MAPPING_NAMES]


def heads() -> dict[str, tuple[str, ...]]:
    """Every ``type:Class`` that some auto class builds -> the names of those tables (``CAUSAL_LM``, ``BACKBONE`` …)."""
    by_head: dict[str, list[str]] = {}
    for table in sorted(vars(modeling_auto)):
        if not table.startswith("MODEL_") or not table.endswith("MAPPING_NAMES"):
            continue
        short = (
            table.removeprefix("MODEL_").removeprefix("FOR_").removesuffix("MAPPING_NAMES").strip("_")
            or "MODEL"
        )
        for kind, classes in getattr(modeling_auto, table).items():
            for cls in (classes,) if isinstance(classes, str) else classes:
                by_head.setdefault(f"{kind}:{cls}", []).append(short)
    return {head: tuple(tables) for head, tables in by_head.items()}


def build(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """Construct a transformers model; see ``ghn.load_model``."""
    source, head = _split_head(name)
    config = _config(source, kwargs, head)
    cls = _head_class(head, source) if head else _default_head(config, kwargs.get("task"))
    if hasattr(cls, "from_config"):
        _check_head(cls, config, source)
    if cls is transformers.AutoModelForCausalLM and type(config) in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING:
        # An encoder must be told to look back only, or it would see the token that it predicts.
        config.is_decoder = kwargs.get("is_decoder", True)
    factory = cls.from_config if hasattr(cls, "from_config") else cls._from_config
    return call_factory(functools.partial(factory, _part_for(cls, config)), name, {})


def is_repaired(name: str) -> bool:
    """Whether ``build(name, {})`` changes the default configuration of a model type so that the model can run."""
    source, head = _split_head(name)
    if source not in CONFIG_MAPPING:
        return False
    cls = _head_class(head, source) if head else None
    try:
        default = _part_for(cls, CONFIG_MAPPING[source]())
    except (TypeError, ValueError, KeyError, AttributeError, StrictDataclassError):
        return bool(_repairs(source, head))
    return bool(default.to_dict() != _part_for(cls, _config(source, {}, head)).to_dict())


def shallow(name: str) -> dict[str, Any]:
    """Overrides with which ``build`` makes two layers of every part of a model, for those that take too long."""
    source, head = _split_head(name)
    config = _config(source, {}, head).to_dict()
    return {key: value for key, value in _cut(config).items() if value != config[key]}


def _cut(config: Mapping[str, Any]) -> dict[str, Any]:
    depth = config.get("num_hidden_layers")
    changes: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and "model_type" in value:
            changes[key] = _cut(value)
        elif isinstance(value, list) and len(value) == depth:
            changes[key] = value[:SHALLOW]  # one entry per layer
    return {**config, **changes, **({"num_hidden_layers": SHALLOW} if depth else {})}


def _part_for(cls: Any, config: PreTrainedConfig) -> PreTrainedConfig:
    """What a class is built from: the text or vision model of a composite type takes its own part."""
    config_class = getattr(cls, "config_class", None)
    if config_class is None or isinstance(config, config_class):
        return config
    return next((value for value in vars(config).values() if isinstance(value, config_class)), config)


def _split_head(name: str) -> tuple[str, str]:
    source, colon, head = name.rpartition(":")
    return (source, head) if colon and "/" not in head and not head.endswith(".json") else (name, "")


def _config(source: str, kwargs: Mapping[str, Any], head: str = "") -> PreTrainedConfig:
    overrides = {key: value for key, value in kwargs.items() if key not in _NOT_OVERRIDES}
    if "num_classes" in kwargs:
        overrides["num_labels"] = kwargs["num_classes"]
    values: dict[str, Any] = {}
    if source in CONFIG_MAPPING:
        cls = CONFIG_MAPPING[source]
    else:
        values = _stored_config(source)
        if values.get("model_type") not in CONFIG_MAPPING:
            raise ModelError(
                f"{source!r} has model_type {values.get('model_type')!r}, unknown to transformers"
            )
        cls = CONFIG_MAPPING[values["model_type"]]
    try:
        if source in CONFIG_MAPPING:
            values = _repairs(source, head)
        default = cls(**values)
        _check_overrides(overrides, default, source)
        config = cls(**_merge(values, _fit_tokens(overrides, default))) if overrides else default
        return _fit_parts(config) if source in CONFIG_MAPPING else config
    except (TypeError, ValueError, KeyError, AttributeError, StrictDataclassError) as error:
        raise ModelError(f"{source!r} can't be configured with {overrides}: {one_line(error)}") from error


def _repairs(source: str, head: str) -> dict[str, Any]:
    """What helps a model type, or one class of it, whose default configuration makes no model that can run."""
    return {**family(source).repairs, **family(f"{source}:{head}").repairs}


def _fit_parts(config: PreTrainedConfig) -> PreTrainedConfig:
    """Let the vision part end where the text part begins: their defaults were chosen apart from each other."""
    vision, text = getattr(config, "vision_config", None), getattr(config, "text_config", None)
    width = getattr(text, "hidden_size", None)
    if getattr(vision, "out_hidden_size", None) and width:
        vision.out_hidden_size = width  # type: ignore[union-attr]
    return config


def _stored_config(source: str) -> dict[str, Any]:
    path = Path(source)
    path = path / "config.json" if path.is_dir() else path
    if path.is_file():
        try:
            return dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ModelError(f"{str(path)!r} is no configuration in JSON: {one_line(error)}") from error
    try:
        values, _ = PreTrainedConfig.get_config_dict(source)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{source!r} is no model type, local folder or config.json, and not found on the hub."
            f"{did_you_mean(source, names())}"
        ) from error
    return dict(values)


def _check_overrides(overrides: Mapping[str, Any], default: PreTrainedConfig, source: str) -> None:
    fields = {*default.to_dict(), *default.attribute_map, "num_labels", "dtype", "attn_implementation"}
    for name in overrides:
        if name not in fields and not hasattr(default, name):
            raise ModelError(f"The configuration of {source!r} has no {name!r}.{did_you_mean(name, fields)}")


def _fit_tokens(overrides: dict[str, Any], default: PreTrainedConfig) -> dict[str, Any]:
    """Overrides under which the default's special tokens are none where a smaller vocabulary doesn't hold them."""
    size = overrides.get("vocab_size")
    if not isinstance(size, int):
        return overrides
    ids = {name: getattr(default, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    outside = {name: None for name, token in ids.items() if isinstance(token, int) and token >= size}
    return {**outside, **overrides}


def _merge(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Stored values with overrides on top, nested configurations entry by entry."""
    result = dict(values)
    for key, value in overrides.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merge(result[key], value) if both else value
    if "num_labels" in overrides:
        result.pop("id2label", None)
        result.pop("label2id", None)
    depth = overrides.get("num_hidden_layers")
    for key in ("layer_types", "mlp_layer_types"):
        if depth is not None and key not in overrides and result.get(key) is not None:
            result[key] = result[key][:depth]
    return result


def _head_class(head: str, source: str) -> Any:
    cls = getattr(transformers, head, None)
    if cls is None or not (hasattr(cls, "from_config") or hasattr(cls, "_from_config")):
        autos = [name for name in dir(modeling_auto) if name.startswith("AutoModel")]
        raise ModelError(
            f"transformers has no model class {head!r} (in 'hf:{source}:{head}').{did_you_mean(head, autos)}"
        )
    return cls


def _default_head(config: PreTrainedConfig, task: str | None) -> Any:
    if task is not None and task not in TASKS:
        raise ModelError(
            f"Unknown task {task!r}; expected one of {', '.join(TASKS)}.{did_you_mean(task, TASKS)}"
        )
    if task is None and config.architectures and hasattr(transformers, config.architectures[0]):
        return getattr(transformers, config.architectures[0])
    first = ("AutoModelForSeq2SeqLM",) if config.is_encoder_decoder else ()
    for head in TASKS[task] if task else first + _DEFAULT_HEADS:
        cls = getattr(transformers, head)
        if type(config) in cls._model_mapping:
            return cls
    if task:
        raise ModelError(
            f"Model type {config.model_type!r} has no head for {task!r}: none of {', '.join(TASKS[task])}"
        )
    raise ModelError(
        f"Model type {config.model_type!r} has no model class of its own; name one, 'hf:X:CLASS'"
    )


def _check_head(cls: Any, config: PreTrainedConfig, source: str) -> None:
    if type(config) in cls._model_mapping:
        return
    heads = [
        name
        for name, other in inspect.getmembers(modeling_auto, inspect.isclass)
        if name.startswith("Auto") and type(config) in (getattr(other, "_model_mapping", None) or ())
    ]
    raise ModelError(f"{source!r} has no {cls.__name__}; it has {', '.join(heads)}")
