"""``"zoo:name"`` -> ``nn.Module``; each zoo has a module of its own, imported when it is first asked for."""

import contextlib
import fnmatch
import importlib
from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from ghn.errors import ModelError, did_you_mean
from ghn.models.meta import parameters_on_meta

ZOOS: dict[str, str] = {
    "timm": "timm:convnext_tiny",
    "torchvision": "torchvision:resnet18",
    "hf": "hf:gpt2",
    "python": "python:package.module:factory",
}
"""The prefixes of a model specification, each with an example."""

_PACKAGES = {"timm": "timm", "torchvision": "torchvision", "transformers": "hf"}

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a forward call."""


class _Zoo(Protocol):
    """What the module of a zoo offers."""

    def names(self) -> list[str]:
        """All names that ``build`` takes without further arguments."""

    def build(self, name: str, kwargs: Mapping[str, Any]) -> nn.Module:
        """Construct an architecture with its own random initialization."""

    def example_inputs(self, model: nn.Module) -> Inputs:
        """Arguments for one forward call of a model of this zoo."""


def load_model(spec: str, *, device: torch.device | str | None = None, **kwargs: Any) -> nn.Module:
    """Construct an architecture with its own random initialization; no pretrained weight is ever downloaded.

    Args:
        spec: ``timm:NAME``, ``torchvision:NAME``, ``python:package.module:factory`` (``python:FILE.py:factory``),
            or ``hf:X`` with ``X`` a model type (gpt2), a hub id, a folder or a config.json;
            ``hf:X:AutoModelForCausalLM`` names the head.
        device: Where the model goes. On ``"meta"`` it is constructed without memory for parameters; buffers,
            which nothing could restore later, stay on the CPU with their values.
        **kwargs: Go to the factory, or override the configuration (``hf``). ``num_classes`` works in every zoo
            but ``python``; ``task`` ('image-classification' or 'language-modeling') chooses the head in ``hf``.

    Raises:
        ModelError: If the specification names nothing, or an argument doesn't fit.
    """
    zoo, name = _split(spec)
    try:
        target = torch.device("cpu" if device is None else device)
    except RuntimeError as error:
        raise ModelError(
            f"device={device!r} names no device; pass 'cpu', 'cuda', 'cuda:1', 'meta' …"
        ) from error
    with parameters_on_meta() if target.type == "meta" else contextlib.nullcontext():
        model = _module(zoo).build(name, kwargs)
    return model if target.type in ("cpu", "meta") else model.to(target)


def list_models(zoo: str | None = None, pattern: str | None = None) -> list[str]:
    """Specifications of all named architectures, sorted within each zoo.

    Args:
        zoo: One of ``timm``, ``torchvision``, ``hf`` (model types); all of them if None.
        pattern: Shell pattern that the name must match, such as ``"*convnext*"``.
    """
    if zoo is not None and zoo not in ZOOS:
        raise ModelError(f"Unknown zoo {zoo!r}; expected one of {', '.join(ZOOS)}.{did_you_mean(zoo, ZOOS)}")
    zoos = [zoo] if zoo is not None else list(ZOOS)
    return [
        f"{zoo}:{name}"
        for zoo in zoos
        for name in sorted(_module(zoo).names())
        if pattern is None or fnmatch.fnmatchcase(name, pattern)
    ]


def zoo_of(model: nn.Module) -> str:
    """Which zoo a model's class comes from: ``timm``, ``torchvision``, ``hf``, or ``python`` for the rest."""
    for ancestor in type(model).__mro__:
        package = ancestor.__module__.partition(".")[0]
        if package in _PACKAGES:
            return _PACKAGES[package]
    return "python"


def example_inputs(model: nn.Module) -> Inputs:
    """Arguments for one forward call: a batch of 1 or 2 on the CPU in the model's precision, the same at every call.

    Returns:
        Positional and keyword arguments: ``args, kwargs = example_inputs(model); model(*args, **kwargs)``.

    Raises:
        ModelError: If the model is not of a known zoo, so that nobody knows what it takes.
    """
    return _in_precision_of(model, _module(zoo_of(model)).example_inputs(model))


def example_calls(model: nn.Module) -> list[Inputs]:
    """Arguments for as many forward calls as it takes to reach every parameter: ``example_inputs`` first.

    One call is enough for nearly every model; some choose a branch by which of their arguments are there.

    Raises:
        ModelError: As ``example_inputs``.
    """
    further = getattr(_module(zoo_of(model)), "further_inputs", None)
    further_calls = further(model) if further else ()
    return [example_inputs(model), *(_in_precision_of(model, call) for call in further_calls)]


def _in_precision_of(model: nn.Module, inputs: Inputs) -> Inputs:
    """Floating-point tensors in the type of the model's first floating-point parameter."""
    dtypes = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    dtype = next(dtypes, torch.float32)
    return tree_map_only(torch.Tensor, lambda one: one.to(dtype) if one.is_floating_point() else one, inputs)


def _split(spec: str) -> tuple[str, str]:
    zoo, colon, name = spec.partition(":")
    if colon and zoo in ZOOS and name:
        return zoo, name
    examples = ", ".join(repr(example) for example in ZOOS.values())
    if colon and zoo in ZOOS:
        raise ModelError(
            f"Model specification {spec!r} has no name after 'zoo:'; write for example {ZOOS[zoo]!r}"
        )
    if colon:
        raise ModelError(
            f"Unknown zoo {zoo!r} in {spec!r}; write one of {examples}.{did_you_mean(zoo, ZOOS)}"
        )
    raise ModelError(f"Model specification {spec!r} names no zoo; write ZOO:NAME, for example {examples}")


def _module(zoo: str) -> _Zoo:
    try:
        return cast(_Zoo, importlib.import_module(f"ghn.models.{zoo}_zoo"))
    except ImportError as error:
        raise ModelError(
            f"The model zoo {zoo!r} can't be imported here ({error}); install or repair it"
        ) from error
