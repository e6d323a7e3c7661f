"""A target architecture as a value: what to build and what to train it on."""

import json
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ghn.models import load_model

SCALES = ("small", "full")
"""Sizes of sampled networks: 'small' trains in milliseconds a step on a CPU core; 'full' covers ViTs-1K and GPTs-1K."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Specification and arguments of one network of a zoo."""

    spec: str
    """As ``ghn.load_model`` takes it."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Plain JSON values."""
    family: str
    """Family for splits and reports."""
    depth: int
    """Residual blocks; layers of convolutions in networks without any."""
    width: int
    """Channels of the widest stage between blocks."""
    task: str = "images"
    """'images' or 'text'."""

    @property
    def key(self) -> str:
        """Equal for equal networks, and a name for caches."""
        return f"{self.spec} {json.dumps(self.kwargs, sort_keys=True)}"

    def build(self, **kwargs: Any) -> nn.Module:
        """Construct the network with the zoo's own random initialization; ``kwargs`` add to its arguments."""
        return load_model(self.spec, **{**self.kwargs, **kwargs})


def stages(total: int, count: int, rng: Any) -> list[int]:
    """Spread ``total`` blocks over ``count`` stages at random, one each at least."""
    cuts = sorted(rng.sample(range(1, total), count - 1))
    return [high - low for low, high in zip([0, *cuts], [*cuts, total], strict=True)]
