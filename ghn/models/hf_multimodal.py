"""Put placeholders of image, video and sound features between the tokens, as many as the towers make features."""

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from ghn.models.hf_exceptions import TOKENS_PER_IMAGE, TOKENS_PER_SOUND
from ghn.models.hf_facts import Facts

MODALITIES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "get_image_features": ("pixel_values", ("image_token_id", "image_token_index"), ("image_grid_thw",)),
    "get_video_features": (
        "pixel_values_videos",
        ("video_token_id", "video_token_index"),
        ("video_grid_thw",),
    ),
    "get_audio_features": ("input_features", ("audio_token_id", "audio_token_index"), ()),
}


def place_features(facts: Facts, kwargs: dict[str, Any]) -> None:
    """Replace ``input_ids`` by text around the placeholders of every modality among ``kwargs``."""
    if "input_ids" not in kwargs:
        return
    pieces = []
    for index, (method, (argument, token_names, grids)) in enumerate(MODALITIES.items()):
        token = facts.find(*token_names)
        if argument not in kwargs or token is None:
            continue
        known = {"pixel_values": TOKENS_PER_IMAGE, "input_features": TOKENS_PER_SOUND}.get(argument, {})
        if facts.kind in known:
            pieces.append((index + 1, torch.full((known[facts.kind](facts),), token)))
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
    merge = facts.find("spatial_merge_size", "merge_size", default=1)
    return int(grid.prod()) // merge**2


def _features(facts: Facts, method: str, kwargs: dict[str, Any]) -> int:
    """How many vectors a tower makes, by running it without weights."""
    skeleton = _skeleton(facts.model)
    owner = next((module for module in skeleton.modules() if hasattr(module, method)), None)
    if owner is None:
        return 0
    tower = getattr(owner, method)
    takes = inspect.signature(tower).parameters
    arguments = {name: value for name, value in kwargs.items() if name in takes}
    arguments = tree_map_only(
        Tensor, lambda tensor: tensor.to("meta") if tensor.is_floating_point() else tensor, arguments
    )
    try:
        with torch.inference_mode():
            output = tower(**arguments)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, IndexError):
        return 0  # its values matter: the model will say what is wrong
    features = getattr(output, "pooler_output", output)
    return sum(leaf.numel() // leaf.shape[-1] for leaf in tree_leaves(features) if isinstance(leaf, Tensor))


def _skeleton(model: nn.Module) -> nn.Module:
    """A copy with all parameters and buffers on meta; the model is not touched."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        twin = tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(twin, False) if isinstance(tensor, nn.Parameter) else twin
    return copy.deepcopy(model, memo)
