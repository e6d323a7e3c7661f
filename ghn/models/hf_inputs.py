"""Example inputs for transformers models: each argument of ``forward`` by its name; what a model type has of its own is
in ``ghn.models.hf_families``."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ghn.models.hf_facts import LENGTH, Facts
from ghn.models.hf_families import family
from ghn.models.hf_multimodal import place_features
from ghn.models.hf_specials import FURTHER, SPECIAL_ARGUMENTS

MakeArgument = Callable[[Facts], Any]
"""Makes the value of one argument; None leaves the argument out."""

CHOICES = 2
"""Alternatives of a multiple-choice question."""
MENTION = 30
"""Tokens that may mention an entity."""
CROSS_ATTENTION = ("encoder_attn", "crossattention", "cross_attn", "encoder_attention", "EncDecAttention")
"""Parts of the names of parameters that read the states of an encoder."""
GRID = 4
"""Patches along each side of an image that comes as a list of patches."""

SAMPLES = 16000
"""Values of a waveform: one second at the usual rate."""
FRAMES = 128
"""Columns of a spectrogram, 1.28 seconds."""
MELS = (
    "num_mel_bins",
    "feature_projection_input_dim",
    "input_feat_per_channel",
    "input_feat_size",
    "num_mels",
)
"""Names by which configurations know the rows of a spectrogram."""


def example_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Keyword arguments for one forward call, from the signature and the configuration."""
    return (), _arguments(Facts(model), {})


def further_inputs(model: nn.Module) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Calls beside ``example_inputs`` for models that choose a branch by which arguments are there."""
    facts = Facts(model)
    changes = [
        *family(facts.kind).further,
        *(change for name, change in FURTHER.items() if facts.takes(name)),
    ]
    return [((), _arguments(facts, change(facts))) for change in changes]


def _arguments(facts: Facts, changes: Mapping[str, Any]) -> dict[str, Any]:
    kwargs: dict[str, Any] = {}
    for name in facts.names:
        if name in ARGUMENTS and not facts.lacks(name):
            kwargs[name] = ARGUMENTS[name](facts)
    own = family(facts.kind).arguments
    if own:
        kwargs.update({name: value for name, value in own(facts).items() if facts.takes(name)})
    kwargs.update(changes)
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    place_features(facts, kwargs)
    return kwargs


def _text_shape(facts: Facts) -> tuple[int, ...]:
    if facts.class_name.endswith("ForMultipleChoice"):
        return (1, CHOICES, LENGTH)
    return (facts.batch, LENGTH)


def _decoder_ids(facts: Facts) -> Tensor | None:
    decoder = facts.part("decoder", "decoder_config", "text_config")
    return facts.tokens(facts.batch, LENGTH, vocabulary=facts.find("vocab_size", within=decoder))


def _token_types(facts: Facts) -> Tensor | None:
    """Only where a model without them leaves an embedding out (XLNet), or takes several for a token (TAPAS)."""
    if facts.kind == "tapas":
        return torch.zeros(*_text_shape(facts), len(facts.config.type_vocab_sizes), dtype=torch.long)
    return torch.zeros(_text_shape(facts), dtype=torch.long) if facts.owns("seg_embed") else None


def _mentions(facts: Facts) -> Tensor:
    """Which tokens mention each of two entities; the rest of a row is -1."""
    places = torch.full((facts.batch, 2, MENTION), -1)
    places[..., 0] = 1
    return places


def _boxes(facts: Facts) -> Tensor:
    low = facts.integers(*_text_shape(facts), 2, high=400)
    return torch.cat([low, low + 100], dim=-1)


def _encoder_states(facts: Facts) -> Tensor | None:
    if not facts.owns(*CROSS_ATTENTION) or facts.takes("decoder_input_ids"):
        return None
    names = ("cross_attention_hidden_size", "encoder_hidden_size", "hidden_size", "d_model")
    return facts.floats(facts.batch, LENGTH, facts.find(*names))


def _encoder_outputs(facts: Facts) -> tuple[Tensor] | None:
    """For text decoders that take the states of an encoder in a tuple."""
    if not facts.class_name.endswith("ForCausalLM") or facts.takes("encoder_hidden_states"):
        return None
    states = _encoder_states(facts)
    return None if states is None else (states,)


def _pixels(facts: Facts) -> Tensor:
    (height, width), channels, (tall, wide) = facts.image_size(), facts.channels(), facts.patch_size()
    grid = facts.takes("image_grid_thw") or facts.takes("grid_thw") or facts.takes("image_grid_hw")
    if facts.takes("spatial_shapes"):
        return facts.floats(facts.batch, GRID * GRID, channels * tall * wide)
    has_tiles = facts.find("image_grid_pinpoints") and facts.takes("image_sizes")
    images = 1 + _tiles(facts) if has_tiles else 1
    sizes = {
        "b": facts.batch,
        "n": images,
        "2": 2,
        "t": facts.find("num_frames", default=8),
        "c": channels,
        "h": height,
        "w": width,
        "p": GRID * GRID,
        "y": tall,
        "x": wide,
    }
    own = family(facts.kind).layout
    if grid and not own:
        return _patch_rows(facts)
    layout = own or ("bnchw" if images > 1 else "bchw")
    return facts.floats(*(sizes[letter] for letter in layout))


def _tiles(facts: Facts) -> int:
    """Tiles that an image of the first supported resolution is cut into."""
    (high, broad), (height, width) = facts.find("image_grid_pinpoints")[0], facts.image_size()
    return (high // height) * (broad // width)


def _image_sizes(facts: Facts) -> Tensor | None:
    """Real sizes of images, for towers that cut them into tiles or (Pixtral) take any size."""
    pinpoints = facts.find("image_grid_pinpoints")
    if not pinpoints and all("pixtral" not in config.model_type for config in facts.configs()):
        return None
    size = pinpoints[0] if pinpoints else facts.image_size()
    return torch.tensor([list(size)] * facts.batch)


def _videos(facts: Facts) -> Tensor | None:
    """Only where nothing but a video will do: beside images it would mostly run the same tower twice."""
    only = facts.model.main_input_name == "pixel_values_videos" or not facts.takes("pixel_values")
    if not only and not facts.owns("video_tower"):
        return None
    frames = facts.find("frames_per_clip", "num_frames", default=8)
    return facts.floats(facts.batch, frames, facts.channels(), *facts.image_size())


def _patch_rows(facts: Facts) -> Tensor:
    """All patches of one image, each a flat row: (patches, channels * frames * height * width)."""
    tall, wide = facts.patch_size()
    names = ("temporal_patch_size", "patch_temporal")
    frames = facts.find(*names, within=facts.vision) or facts.find(*names, default=1)
    return facts.floats(GRID * GRID, facts.channels() * frames * tall * wide)


def _grid(facts: Facts) -> Tensor:
    return torch.tensor([[1, GRID, GRID]])


def _pixel_mask(facts: Facts) -> Tensor | None:
    """Which patches of a list of patches are real: all."""
    return torch.ones(facts.batch, GRID * GRID, dtype=torch.long) if facts.takes("spatial_shapes") else None


def _masked_patches(facts: Facts) -> Tensor | None:
    if not facts.owns("mask_token"):
        return None
    frames = facts.find("num_frames", default=1) // facts.find("tubelet_size", default=1)
    mask = torch.zeros(facts.batch, frames * facts.patches(), dtype=torch.bool)
    mask[:, ::2] = True
    return mask


def _flattened_patches(facts: Facts) -> Tensor:
    """Rows of patches that start with their place in the image, counted from one."""
    tall, wide = facts.patch_size()
    return facts.floats(facts.batch, GRID * GRID, 2 + tall * wide * facts.channels()).abs().ceil()


def _waveform(facts: Facts) -> Tensor:
    if facts.find("num_mel_bins") and facts.find("max_length"):
        return facts.floats(facts.batch, facts.find("max_length"), facts.find("num_mel_bins"))
    return facts.floats(facts.batch, SAMPLES)


def _spectrogram(facts: Facts) -> Tensor:
    mels, frames = facts.find(*MELS, default=80), _frames(facts)
    return facts.floats(facts.batch, *((mels, frames) if _mels_first(facts) else (frames, mels)))


def _mels_first(facts: Facts) -> bool:
    """Whether a spectrogram has Whisper's layout, of which every frame must be there."""
    mels = facts.find(*MELS, default=80)
    convolutions = (module for module in facts.model.modules() if isinstance(module, nn.Conv1d))
    return facts.takes("feature_attention_mask") or (
        facts.find("max_source_positions") is not None
        and facts.find("input_feat_per_channel") is None
        and any(module.in_channels == mels for module in convolutions)
    )


def _frames(facts: Facts) -> int:
    if _mels_first(facts) and facts.find("max_source_positions"):
        return 2 * int(facts.find("max_source_positions"))
    window = 2 * int(facts.find("n_window", default=1))
    return math.ceil(FRAMES / window) * window


def _spectrogram_mask(facts: Facts) -> Tensor:
    return torch.ones(facts.batch, _frames(facts), dtype=torch.bool)


def _masked_frames(facts: Facts) -> Tensor | None:
    """Every second frame, if the model has a vector to put there."""
    lengths: Any = getattr(facts.model, "_get_feat_extract_output_lengths", None)
    if lengths is None or not facts.owns("masked_spec_embed"):
        return None
    frames = int(lengths(SAMPLES))
    return (torch.arange(frames) % 2 == 0).expand(facts.batch, -1).contiguous()


ARGUMENTS: dict[str, MakeArgument] = {
    "use_cache": lambda facts: False,
    # text
    "input_ids": lambda facts: facts.tokens(*_text_shape(facts)),
    "decoder_input_ids": _decoder_ids,
    "input_shape_ids": lambda facts: facts.integers(*_text_shape(facts), high=facts.config.shape_vocab_size),
    "input_pronunciation_ids": lambda facts: facts.integers(
        *_text_shape(facts), high=facts.config.pronunciation_vocab_size
    ),
    "qformer_input_ids": lambda facts: facts.tokens(
        *_text_shape(facts), vocabulary=facts.part("qformer_config").vocab_size
    ),
    "bbox": _boxes,
    "global_attention_mask": lambda facts: torch.arange(LENGTH).eq(0).long().expand(facts.batch, -1),
    "entity_ids": lambda facts: facts.tokens(facts.batch, 2, vocabulary=facts.config.entity_vocab_size),
    "entity_position_ids": _mentions,
    "token_type_ids": _token_types,
    # XLNet: the positions to predict (its second stream of attention).
    "target_mapping": lambda facts: torch.eye(LENGTH).expand(math.prod(_text_shape(facts)[:-1]), -1, -1),
    "encoder_hidden_states": _encoder_states,
    "encoder_outputs": _encoder_outputs,
    # images
    "pixel_values": _pixels,
    "image_grid_thw": _grid,
    "grid_thw": _grid,
    "image_grid_hw": lambda facts: _grid(facts)[:, 1:],
    "image_merge_sizes": lambda facts: torch.ones(1, dtype=torch.long),
    "merge_sizes": lambda facts: torch.ones(1, dtype=torch.long),
    "flattened_patches": _flattened_patches,
    "image_sizes": _image_sizes,
    "pixel_values_videos": _videos,
    "pixel_attention_mask": _pixel_mask,
    "target_sizes": lambda facts: torch.tensor(
        [[side // size for side, size in zip(facts.image_size(), facts.patch_size(), strict=True)]]
    ),
    "hidden_states": lambda facts: _patch_rows(facts) if facts.takes("grid_thw") else None,
    "spatial_shapes": lambda facts: torch.tensor([[GRID, GRID]] * facts.batch),
    "bool_masked_pos": _masked_patches,
    # sound
    "input_values": _waveform,
    "input_features": _spectrogram,
    "input_features_mask": _spectrogram_mask,
    "feature_attention_mask": _spectrogram_mask,
    "mask_time_indices": _masked_frames,
    # The vectors of the speakers are part of the loss.
    "labels": lambda facts: (
        torch.zeros(facts.batch, dtype=torch.long) if facts.owns("objective.weight") else None
    ),
    **SPECIAL_ARGUMENTS,
}
"""Argument name -> its value; arguments without one keep the model's default."""
