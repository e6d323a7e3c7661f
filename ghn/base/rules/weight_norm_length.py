"""Lengths of weight-normalized rows."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class WeightNormLength(Rule):
    """Rows under weight normalization are as long as those of torch's default linear map.

    References:
        Weight normalization, https://arxiv.org/abs/1602.07868
    """

    roles: ClassVar[frozenset[str]] = frozenset({"weight_norm_scale"})
    mean: float = math.sqrt(1 / 3)
    """Length of a row."""

    def init(self, p: ParamContext) -> Init:
        """This number everywhere."""
        return Init.vector(p.mean_or(self.mean))
