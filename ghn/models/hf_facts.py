"""What a transformers model says about itself: its configurations, its signature, and tensors that fit them."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

LENGTH = 16
"""Tokens of an example sequence."""
LOWEST_TOKEN = 3
"""Smaller ids are padding, begin and end in many vocabularies."""

_IMAGE_SIZE = ("image_size", "img_size", "input_image_size")

HANDED_ON = (
    "bool_masked_pos",
    "pixel_values",
    "image_grid_thw",
    "mm_token_type_ids",
    "input_features",
    "input_features_mask",
)
"""Arguments that a head passes to its model without naming them."""


class Facts:
    """Answers of one model, and a generator of its own so that global random numbers stay untouched."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.config = cast(Any, model).config
        self.kind: str = self.config.model_type
        self.class_name = type(model).__name__
        self.names = _arguments(model)
        self.text: Any = _text_config(self.config)
        self.generator = torch.Generator().manual_seed(0)
        # One sequence, as heads that pool the last token need a padding token for more; two images, as
        # BatchNorm in train mode needs two values per channel.
        self.batch = 1 if "input_ids" in self.names else 2

    def configs(self) -> Iterator[Any]:
        """The configuration and all that are nested in it, outer ones first."""
        queue = [self.config]
        while queue:
            config = queue.pop(0)
            yield config
            queue += [value for value in vars(config).values() if isinstance(value, PreTrainedConfig)]

    def find(self, *names: str, default: Any = None, within: Any = None) -> Any:
        """The first value under one of the names: in one configuration, or in the outermost that has it."""
        for config in self.configs() if within is None else (within,):
            for name in names:
                if getattr(config, name, None) is not None:
                    return getattr(config, name)
        return default

    def part(self, *names: str) -> Any:
        """The nested configuration under one of the names, else the whole configuration."""
        for config in self.configs():
            for name in names:
                if isinstance(getattr(config, name, None), PreTrainedConfig):
                    return getattr(config, name)
        return self.config

    def takes(self, name: str) -> bool:
        """Whether ``forward`` has an argument of this name."""
        return name in self.names

    def lacks(self, name: str) -> bool:
        """Whether ``forward`` takes an argument for a tower that this configuration leaves out."""
        vision = name.startswith(("pixel", "image", "video"))
        part = (
            "vision_config"
            if vision
            else "audio_config"
            if name.startswith(("input_features", "audio"))
            else ""
        )
        return bool(part) and any(
            hasattr(config, part) and getattr(config, part) is None for config in self.configs()
        )

    def owns(self, *parts: str) -> bool:
        """Whether the name of some parameter contains one of the parts."""
        return any(part in name for name, _ in self.model.named_parameters() for part in parts)

    def floats(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, generator=self.generator)

    def integers(self, *shape: int, high: int, low: int = 0) -> Tensor:
        """Uniform integers in [low, high)."""
        return torch.randint(low, max(high, low + 1), shape, generator=self.generator)

    def tokens(self, *shape: int, vocabulary: int | None = None) -> Tensor:
        """Ordinary token ids, and the end-of-sequence token in the last place, where some heads look for it."""
        size = vocabulary or self.find("vocab_size", within=self.text) or self.find("vocab_size", default=100)
        size = size[0] if isinstance(size, Sequence) else size
        special = {
            token
            for config in self.configs()
            for name, value in vars(config).items()
            if "token_i" in name
            for token in (value if isinstance(value, (list, tuple)) else (value,))
        }
        ordinary = [token for token in range(min(LOWEST_TOKEN, size - 1), size) if token not in special][
            :1000
        ]
        ids = torch.tensor(ordinary or [0])[self.integers(*shape, high=max(len(ordinary), 1))]
        end = getattr(self.text, "eos_token_id", None)
        end = end[0] if isinstance(end, (list, tuple)) else end
        if end is not None and 0 <= end < size:
            ids[..., -1] = end
        return ids

    @property
    def vision(self) -> Any:
        """The configuration that describes images."""
        for config in self.configs():
            if any(getattr(config, name, None) is not None for name in (*_IMAGE_SIZE, "patch_size")):
                return config
        return self.part("vision_config", "backbone_config", "encoder")

    def image_size(self, default: int = 224) -> tuple[int, int]:
        """Height and width of an image."""
        size = self.find(*_IMAGE_SIZE, within=self.vision) or self.find(*_IMAGE_SIZE, default=default)
        if isinstance(size, dict):
            size = (size["height"], size["width"])
        return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))

    def channels(self) -> int:
        """Channels of an image."""
        names = ("num_channels", "in_channels", "in_chans", "num_input_channels")
        return int(self.find(*names, within=self.vision) or self.find(*names, default=3))

    def patch_size(self, default: int = 16) -> tuple[int, int]:
        """Height and width of a patch."""
        size = self.find("patch_size", within=self.vision) or self.find("patch_size", default=default)
        return (int(size), int(size)) if isinstance(size, int) else (int(size[-2]), int(size[-1]))

    def patches(self) -> int:
        """Patches of an image."""
        (height, width), (tall, wide) = self.image_size(), self.patch_size()
        return (height // tall) * (width // wide)


def _text_config(config: Any) -> Any:
    try:
        return config.get_text_config()
    except ValueError:  # both the encoder and the decoder have one (MusicGen)
        return config.get_text_config(decoder=True)


def _arguments(model: nn.Module) -> tuple[str, ...]:
    """Names of what ``forward`` takes, some of them for the model inside."""
    own = inspect.signature(model.forward).parameters
    inside = getattr(model, getattr(model, "base_model_prefix", "") or "model", None)
    if not isinstance(inside, nn.Module) or all(
        value.kind is not value.VAR_KEYWORD for value in own.values()
    ):
        return tuple(own)
    further = inspect.signature(inside.forward).parameters
    return (*own, *(name for name in HANDED_ON if name in further and name not in own))
