"""Maps before an activation in networks without normalization."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import RECTIFIERS, ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule
from ghn.base.rules.gains import RELU_GAIN
from ghn.graph.ops import MIXING_ROLES

ACTIVATION_GAINS = {
    "relu": 1.414,
    "relu6": 1.414,
    "leaky_relu": 1.414,
    "prelu": 1.372,
    "elu": 1.245,
    "selu": 1.0,
    "gelu": 1.533,
    "silu": 1.675,
    "mish": 1.483,
    "softplus": 1.042,
    "hardswish": 1.737,
    "tanh": 1.593,
    "hardtanh": 1.393,
}
"""One over the root mean square of the activation of standard normal numbers. Sigmoids are gates and ends."""

SATURATING = frozenset({"tanh", "hardtanh"})
"""They may be an output or a gate as well, so they count only if nothing else reads a map."""


@dataclass(frozen=True, kw_only=True)
class UnnormalizedChain(Rule):
    r"""Where weights alone keep the size of activations, a chain of L maps may lose a fixed share of it in all.

    .. math:: \sigma = g_L / \sqrt{\mathrm{fan_{in}}}, \qquad
        g_L = \min\left(\sqrt 2,\; \max\left(\sqrt{1/3},\; g_\phi\, k^{1 / L}\right)\right)

    with g_φ the gain that keeps the size through the activation and k the share that is kept.
    Between two wrongs: with torch's default deep networks fade, and with the gain of He et al. shallow ones start as
    large random functions, which training has to undo. A map that is repeated in a loop would grow with every turn: it
    has the gain of He et al. before rectifiers, and none of this before others.

    Evidence (`docs/log/no-normalization.md`; `benchmarks/results/users.csv`), losses after
    training relative to the own start, geometric mean over 15 to 18 networks:

    | share kept, k | 0.1 | 0.2 | 0.3 | 1 (He et al.) |
    |---|---|---|---|---|
    | ratio | 0.68 | 0.61 | 0.59 | 0.95 (17 networks, where 0.2 has 0.88) |
    | hypernetwork | 0.91 | 0.99 | 1.32 | |

    References:
        He et al., https://arxiv.org/abs/1502.01852
    """

    roles: ClassVar[frozenset[str]] = MIXING_ROLES
    kept: float = 0.2
    """Size of the outputs, relative to the inputs, that a chain of maps is left with."""
    least_gain: float = 3**-0.5
    """Gain of torch's default map: short chains don't lose more."""
    most_gain: float = 2**0.5
    """Gain that keeps large numbers as large through all rectifiers: with more, SiLU and GELU let chains explode."""

    def applies(self, p: ParamContext) -> bool:
        """Whether nothing normalizes what it makes, and an activation reads it."""
        if not p.is_unnormalized or activation_gain(p.readers) is None:
            return False
        return not p.is_repeated or not p.readers.isdisjoint(RECTIFIERS)

    def init(self, p: ParamContext) -> Init:
        """Orthogonal rows of this size."""
        activation = activation_gain(p.readers)
        assert activation is not None
        gain = RELU_GAIN if p.is_repeated else self.chain_gain(activation, p.chain_length)
        return Init(std=gain / math.sqrt(p.fan_in))

    def chain_gain(self, activation: float, maps: int) -> float:
        """Gain of one of so many maps in a row, before an activation of that gain."""
        return min(self.most_gain, max(self.least_gain, activation * self.kept ** (1 / maps)))


def activation_gain(readers: Collection[str]) -> float | None:
    """Largest gain of the activations among the readers of a map; None if it isn't read as their input."""
    gains = {kind: ACTIVATION_GAINS[kind] for kind in readers if kind in ACTIVATION_GAINS}
    if not gains or (gains.keys() <= SATURATING and len(gains) < len(readers)):
        return None
    return max(gains.values())
