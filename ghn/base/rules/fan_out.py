"""Every matrix and kernel by its fan-out, in ablations."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule
from ghn.base.rules.gains import DEFAULT_GAIN
from ghn.graph.ops import MIXING_ROLES


@dataclass(frozen=True, kw_only=True)
class FanOut(Rule):
    r"""Every matrix and kernel keeps the size of gradients instead of activations; with ``scheme='fan_out'`` alone.

    .. math:: \sigma = \sqrt{1 / 3} / \sqrt{\mathrm{fan_{out}}}

    References:
        Hyperfan initialization, https://arxiv.org/abs/2312.08399
    """

    roles: ClassVar[frozenset[str]] = MIXING_ROLES
    gain: float = DEFAULT_GAIN
    """Standard deviation times the root of the fan-out."""

    def init(self, p: ParamContext) -> Init:
        """Orthogonal rows of this size."""
        return Init(std=self.gain / math.sqrt(p.fan_out))
