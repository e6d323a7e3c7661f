"""Biases in networks without normalization."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule
from ghn.base.rules.gains import DEFAULT_GAIN


@dataclass(frozen=True, kw_only=True)
class UnnormalizedBias(Rule):
    r"""Biases of a network without normalization are spread as torch spreads them, but for the outputs'.

    .. math:: b \sim U(-1 / \sqrt{\mathrm{fan_{in}}},\; 1 / \sqrt{\mathrm{fan_{in}}})

    At zero all units of a first layer bend at one point, which few inputs take long to tell apart.

    Evidence (`docs/log/no-normalization.md`; `benchmarks/results/users.csv`), losses relative
    to the own start: zero biases 1.12, torch's 0.97, twice torch's 0.89 (but coordinates 0.38 → 0.52). Evenly instead
    of normally: linnerud 0.65 → 0.51, super-resolution 1.10 → 1.00, coordinates 0.46 → 0.40; deep CNN 0.41 → 0.51.
    """

    roles: ClassVar[frozenset[str]] = frozenset({"bias"})
    gain: float = DEFAULT_GAIN
    """Standard deviation times the root of what the operation sums."""

    def applies(self, p: ParamContext) -> bool:
        """Whether it is added to a sum, nothing normalizes that, and it makes no output."""
        return p.operation_fan_in > 0 and p.is_unnormalized and not p.feeds_outputs

    def init(self, p: ParamContext) -> Init:
        """Evenly spread numbers of this size."""
        return Init(std=self.gain / math.sqrt(p.operation_fan_in), distribution="uniform")
