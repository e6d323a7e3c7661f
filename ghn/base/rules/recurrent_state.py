"""Recurrent layers' maps of their own state."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class RecurrentState(Rule):
    r"""A recurrent layer's map of its own state keeps the state's size, where nothing normalizes.

    .. math:: \sigma = 1 / \sqrt{\mathrm{fan_{in}}}

    Torch draws it to lose two thirds of the variance at each step; what is to be remembered fades less.

    Evidence (`docs/log/users-losers.md`; `benchmarks/results/users.csv`), final loss relative
    to the own start, two seeds:

    | gain | RNN | GRU forecast | LSTM forecast | recall |
    |---|---|---|---|---|
    | torch's, 0.58 | 1.02 | 0.97 | 1.02 | 1.01 |
    | 1 | 0.98 | 0.94 | 1.01 | 0.92 |
    """

    roles: ClassVar[frozenset[str]] = frozenset({"recurrent_hidden"})
    gain: float = 1.0
    """Standard deviation times the root of the fan-in."""

    def applies(self, p: ParamContext) -> bool:
        """Whether the model has no normalization."""
        return not p.traits.norms

    def init(self, p: ParamContext) -> Init:
        """Orthogonal rows of this size."""
        return Init(std=self.gain / math.sqrt(p.fan_in))
