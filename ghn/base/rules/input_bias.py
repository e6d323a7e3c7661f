"""Biases of linear maps that read inputs, before layer normalizations."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class InputBias(Rule):
    r"""A linear map of inputs has biases as large as its entries where normalizations forget how long a vector is.

    .. math:: \sigma = \sqrt{2 / (\mathrm{fan_{in}} + \mathrm{fan_{out}})}

    Without them the first normalization leaves of an example its direction alone. Larger ones drown what little a map
    of two coordinates makes. The biases of later maps say nothing, and transformers add positions, which are such a
    constant (torch's encoder of rows of digits: 0.66 with zero, 0.73 with torch's biases).

    Evidence (`docs/log/seeds-and-losers.md`), loss relative to the own start:

    | MLP with layer normalization | zero | half | this | twice | torch's |
    |---|---|---|---|---|---|
    | behind each map, regression, 12 seeds | 0.96 | 0.80 | 0.63 | 0.58 | 0.65 |
    | in two residual branches, regression, 12 seeds | 0.69 | 0.63 | 0.60 | 0.91 | 0.69 |
    | behind each map, of two coordinates, 6 seeds | 1.81 | 1.05 | 1.06 | 2.19 | 2.21 |
    """

    roles: ClassVar[frozenset[str]] = frozenset({"bias"})

    def applies(self, p: ParamContext) -> bool:
        """Whether its map reads inputs, before layer or RMS normalizations, without positions or attention."""
        constant = p.traits.has_positions or p.traits.has_attention
        reads = p.operation_fan_in > 0 and p.is_linear and p.reads_inputs
        return reads and p.traits.forgets_lengths and not constant

    def init(self, p: ParamContext) -> Init:
        """Evenly spread numbers of this size."""
        return Init(std=math.sqrt(2 / (p.operation_fan_in + p.spec.numel)), distribution="uniform")
