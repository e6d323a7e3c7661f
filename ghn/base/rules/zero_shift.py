"""Biases and other vectors that are added."""

from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class ZeroShift(Rule):
    """What is added to activations starts at zero, or where the way to its operation says that it is neutral."""

    roles: ClassVar[frozenset[str]] = frozenset({"bias", "shift", "norm_bias"})

    def init(self, p: ParamContext) -> Init:
        """Zero everywhere."""
        return Init.vector(p.mean_or(0.0))
