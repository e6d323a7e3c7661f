"""Weights that multiply activations."""

from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class UnitMultiplier(Rule):
    """What multiplies activations starts at 1, or where the way to its operation says that it is neutral.

    At the end of a residual branch, weights of normalizations and layer scales are damped.
    """

    roles: ClassVar[frozenset[str]] = frozenset({"norm_weight", "scale", "layer_scale"})
    mean: float = 1.0
    """Value where nothing else is known of it."""

    def init(self, p: ParamContext) -> Init:
        """This number everywhere."""
        return Init.vector(p.mean_or(self.mean))
