"""Inputs for transformers models: a rule for every argument name, not for every model."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

BATCH = 2
LENGTH = 16


def example_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Keyword arguments for one forward call, from the signature and the configuration."""
    config = model.config
    generator = torch.Generator().manual_seed(0)
    names = inspect.signature(model.forward).parameters
    kwargs: dict[str, Any] = {}
    text = config.get_text_config()

    def tokens() -> Tensor:
        return torch.randint(3, min(text.vocab_size, 1000), (BATCH, LENGTH), generator=generator)

    for name in names:
        if name == "input_ids" or (name == "decoder_input_ids" and config.is_encoder_decoder):
            kwargs[name] = tokens()
        elif name == "pixel_values":
            size = getattr(config, "image_size", 224)
            height, width = (size, size) if isinstance(size, int) else size
            channels = getattr(config, "num_channels", 3)
            kwargs[name] = torch.randn(BATCH, channels, height, width, generator=generator)
        elif name == "use_cache":
            kwargs[name] = False
    return (), kwargs
