"""Outputs behind sums over sets."""

from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Modifier


@dataclass(frozen=True, kw_only=True)
class SetOutput(Modifier):
    """Output maps are smaller where the members of sets are summed and nothing normalizes.

    What is summed is not independent, so such networks start with outputs that are too large.

    Evidence (`docs/log/users-losers.md`; `benchmarks/results/users.csv`), sum over a set, loss
    relative to the own start, six seeds: 1.19 → 0.96 at a rate of 0.01, 1.35 → 1.41 at 0.003. Graph networks lost by
    it, and don't have it.
    """

    rules: ClassVar[frozenset[str] | None] = frozenset({"classifier", "patch_classifier"})
    factor: float = 0.3
    """Factor on their standard deviation."""

    def applies(self, p: ParamContext, init: Init) -> bool:
        """Whether the model sums sets."""
        return p.traits.sums_sets

    def modify(self, p: ParamContext, init: Init) -> Init:
        """Smaller by the factor."""
        return init.scaled(self.factor)
