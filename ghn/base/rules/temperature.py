"""Logarithms of scales."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class Temperature(Rule):
    """What is exponentiated and multiplies starts at a temperature of 0.1, as Swin v2 and CLIP-like models do.

    Where it multiplies no cosines, the way to its operation says what is neutral.

    References:
        Swin Transformer V2, https://arxiv.org/abs/2111.09883
    """

    roles: ClassVar[frozenset[str]] = frozenset({"log_scale"})
    scale: float = 10.0
    """One over the temperature."""

    def init(self, p: ParamContext) -> Init:
        """Its logarithm everywhere."""
        return Init.vector(p.mean_or(math.log(self.scale)))
