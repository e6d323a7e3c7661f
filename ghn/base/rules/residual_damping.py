"""Ends of residual branches."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Modifier


@dataclass(frozen=True, kw_only=True)
class ResidualDamping(Modifier):
    r"""What sets the size of a residual branch is divided by the root of their number L in the whole model.

    .. math:: \sigma \to \sigma / \sqrt L, \qquad \mu \to \mu / \sqrt L

    So the sum of all branches has the variance of one. It is the branch's layer scale, else the weight of its last
    normalization (and the bias beside it), else its last matrix or kernel.

    Evidence (`docs/log/52-families.md`), bits per byte after 60 steps, undamped → damped:
    Mamba 3.865 → 3.491, Mamba 2 3.742 → 3.582, RWKV 3.861 → 3.773.

    References:
        GPT-2; Fixup, https://arxiv.org/abs/1901.09321
    """

    rules: ClassVar[frozenset[str] | None] = frozenset(
        {
            *("conv_batch_norm", "unnormalized_chain", "fan_in", "fan_out"),
            *("unit_multiplier", "last_norm", "batch_norm_bias", "zero_shift"),
        }
    )

    def applies(self, p: ParamContext, init: Init) -> bool:
        """Whether it ends a branch, or shifts the normalization that does."""
        return p.branches > 0 and (init.random or bool(init.mean))

    def modify(self, p: ParamContext, init: Init) -> Init:
        """Smaller by the root of the number of branches."""
        return init.scaled(1 / math.sqrt(p.branches))
