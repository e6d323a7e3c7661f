"""Maps that read sums of many activations."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Modifier


@dataclass(frozen=True, kw_only=True)
class SumPooling(Modifier):
    r"""What reads sums of N activations, over sets or neighbours, is smaller by the root of their number.

    .. math:: \sigma \to \sigma / \sqrt N

    Not where they were weighted before, or divided afterwards, as attention and means do, or where something
    normalizes.

    Evidence (`docs/log/no-normalization.md`; `benchmarks/results/users.csv`), loss relative
    to the own start: GINE 0.97 → 0.77.
    """

    rules: ClassVar[frozenset[str] | None] = frozenset(
        {
            *("recurrent_state", "unnormalized_chain", "relu_maps", "patch_classifier", "classifier"),
            *("fan_in", "fan_out"),
        }
    )

    def applies(self, p: ParamContext, init: Init) -> bool:
        """Whether what its operation reads was summed up."""
        return p.summands > 1

    def modify(self, p: ParamContext, init: Init) -> Init:
        """Smaller by the root of their number."""
        return init.scaled(1 / math.sqrt(p.summands))
