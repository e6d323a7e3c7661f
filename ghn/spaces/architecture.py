"""A target architecture as a value: what to build and what to train it on."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ghn.models import load_model


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Specification and arguments of one network of a zoo."""

    spec: str
    """As ``ghn.load_model`` takes it."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    family: str
    """Family for splits and reports."""
    task: str = "images"
    """'images' or 'text'."""

    def build(self, **kwargs: Any) -> nn.Module:
        """Construct the network with the zoo's own random initialization; ``kwargs`` add to its arguments."""
        return load_model(self.spec, **{**self.kwargs, **kwargs})
