"""Slopes of parametric rectifiers."""

from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class PreluSlope(Rule):
    """The negative slope of a parametric rectifier starts as torch's.

    References:
        He et al., https://arxiv.org/abs/1502.01852
    """

    roles: ClassVar[frozenset[str]] = frozenset({"slope"})
    mean: float = 0.25
    """Slope that ``nn.PReLU`` starts with."""

    def init(self, p: ParamContext) -> Init:
        """This number everywhere."""
        return Init.vector(p.mean_or(self.mean))
