"""Put placeholders of image, video and sound features between the tokens, as many as the towers make features."""

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ghn.models.hf_facts import Facts
from ghn.models.hf_families import family

MODALITIES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "get_image_features": (
        ("pixel_values", "image_pixel_values"),
        ("image_token_id", "image_token_index"),
        ("image_grid_thw",),
    ),
    "get_video_features": (
        ("pixel_values_videos",),
        ("video_token_id", "video_token_index"),
        ("video_grid_thw",),
    ),
    "get_audio_features": (
        ("input_features", "audio_input_features", "input_values", "audio_input_ids"),
        ("audio_token_id", "audio_token_index"),
        (),
    ),
}
"""Method that runs a tower -> names of its argument, of the placeholder in configurations, of the sizes in patches."""


def place_features(facts: Facts, kwargs: dict[str, Any]) -> None:
    """Replace ``input_ids`` by text around the placeholders of every modality among ``kwargs``."""
    if "input_ids" not in kwargs:
        return
    pieces = []
    for index, (method, (arguments, token_names, grids)) in enumerate(MODALITIES.items()):
        token = facts.find(*token_names)
        if not kwargs.keys() & {*arguments} or token is None:
            continue
        own = family(facts.kind)
        count_of = {"get_image_features": own.image_tokens, "get_audio_features": own.sound_tokens}.get(
            method
        )
        if count_of:
            pieces.append((index + 1, torch.full((count_of(facts),), token)))
            continue
        grid = next((kwargs[name] for name in grids if name in kwargs), None)
        count = _grid_features(facts, grid) if grid is not None else _features(facts, method, kwargs)
        if count:
            pieces.append((index + 1, torch.full((count,), token)))
    if not pieces:
        return
    text = kwargs["input_ids"]
    runs, kinds = [text[0, :4]], [torch.zeros(4, dtype=torch.long)]
    for kind, run in pieces:
        runs += [run, text[0, 4:6]]
        kinds += [torch.full_like(run, kind), torch.zeros(2, dtype=torch.long)]
    kwargs["input_ids"] = torch.cat([*runs, text[0, 6:]]).expand(len(text), -1).contiguous()
    kinds.append(torch.zeros_like(text[0, 6:]))
    for name in ("mm_token_type_ids", "moe_mm_token_type_ids"):
        if facts.takes(name):
            kwargs[name] = torch.cat(kinds).expand(len(text), -1).contiguous()


def _grid_features(facts: Facts, grid: Tensor) -> int:
    merge = facts.find("spatial_merge_size", "merge_size", "merge_kernel_size", default=1)
    return int(grid.prod()) // (merge**2 if isinstance(merge, int) else math.prod(merge))


def _features(facts: Facts, method: str, kwargs: dict[str, Any]) -> int:
    """How many vectors a tower makes, by running it without weights."""
    skeleton = _skeleton(facts.model)
    owners = [module for module in skeleton.modules() if hasattr(module, method)]
    if not owners:
        return 0
    tower = getattr(owners[-1], method)  # outer ones only hand on what they get
    arguments = {
        name: kwargs.get(name, parameter.default)
        for name, parameter in inspect.signature(tower).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    arguments = {
        name: None if value is inspect.Parameter.empty else value for name, value in arguments.items()
    }
    arguments = tree_map_only(
        Tensor, lambda tensor: tensor.to("meta") if tensor.is_floating_point() else tensor, arguments
    )
    try:
        with torch.inference_mode(), _ShapesAlone():
            output = tower(**arguments)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, LookupError):
        return 0  # the model will say what is wrong
    features = getattr(output, "pooler_output", None)
    features = getattr(output, "last_hidden_state", output) if features is None else features
    return sum(leaf.numel() // leaf.shape[-1] for leaf in tree_leaves(features) if isinstance(leaf, Tensor))


class _ShapesAlone(TorchDispatchMode):
    """Masks, sizes and indices stay real; what meets a meta tensor is run on shapes, or on ones if values matter."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(tensor.is_meta for tensor in tensors):
            cpu = torch.device("cpu")
            args = tuple(cpu if isinstance(arg, torch.device) else arg for arg in args)
            return func(*args, **({**kwargs, "device": cpu} if "device" in kwargs else kwargs))
        try:
            return func(*_everywhere(args, _to_meta), **_everywhere(kwargs, _to_meta))
        except (RuntimeError, NotImplementedError):
            kwargs = {**kwargs, "device": None} if "device" in kwargs else kwargs
            result = func(*_everywhere(args, _to_ones), **_everywhere(kwargs, _to_ones))
            return _everywhere(
                result, lambda tensor: tensor.to("meta") if tensor.is_floating_point() else tensor
            )


def _everywhere(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return tree_map_only(Tensor, change, value)


def _to_meta(tensor: Tensor) -> Tensor:
    return tensor.to("meta")


def _to_ones(tensor: Tensor) -> Tensor:
    return torch.ones(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor


def _skeleton(model: nn.Module) -> nn.Module:
    """A copy with all parameters on meta; the model is not touched."""
    memo: dict[int, Any] = {}
    for tensor in model.parameters():
        memo[id(tensor)] = nn.Parameter(tensor.detach().to("meta"), False)
    return copy.deepcopy(model, memo)
