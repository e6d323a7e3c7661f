"""Parameters that a known number multiplies on the way to their operation."""

from dataclasses import dataclass

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Modifier


@dataclass(frozen=True, kw_only=True)
class KnownFactor(Modifier):
    r"""A parameter that is multiplied by a known number c before its operation starts as many times larger.

    .. math:: \sigma \to \sigma / c, \qquad \mu \to \mu / c

    So what reaches the operation is what the rule says, under equalized learning rates and the neural tangent kernel's
    parametrization too. It is for random values and for biases; what multiplies is neutral as it is.

    References:
        Progressive growing of GANs, https://arxiv.org/abs/1710.10196
    """

    def applies(self, p: ParamContext, init: Init) -> bool:
        """Whether there is such a number, and the parameter is random or a bias."""
        return p.spec.factor != 1 and (init.random or p.spec.role in ("bias", "shift"))

    def modify(self, p: ParamContext, init: Init) -> Init:
        """Over the number."""
        return init.scaled(1 / p.spec.factor)
