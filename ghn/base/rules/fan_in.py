"""Every other matrix and kernel."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule
from ghn.base.rules.gains import DEFAULT_GAIN
from ghn.graph.ops import MIXING_ROLES


@dataclass(frozen=True, kw_only=True)
class FanIn(Rule):
    r"""A matrix or kernel that no other rule is for is as large as torch's default.

    .. math:: \sigma = \sqrt{1 / 3} / \sqrt{\mathrm{fan_{in}}}

    Its rows, or columns where those are fewer, are orthogonal, which torch's are not.

    Evidence (`docs/log/batchnorm-bias.md`), accuracy in %:

    | | random | Gaussian | orthogonal |
    |---|---|---|---|
    | ResNet-18 | 36.9 | 38.5 | 39.0 |
    | DenseNet | 36.9 | 37.1 | 38.2 |

    References:
        Saxe et al., https://arxiv.org/abs/1312.6120
    """

    roles: ClassVar[frozenset[str]] = MIXING_ROLES
    gain: float = DEFAULT_GAIN
    """Standard deviation times the root of the fan-in."""

    def init(self, p: ParamContext) -> Init:
        """Orthogonal rows of this size."""
        return Init(std=self.gain / math.sqrt(p.fan_in))
