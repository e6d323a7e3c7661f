"""Tables of vectors, and vectors that join a sequence."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule
from ghn.base.rules.gains import DEFAULT_GAIN


@dataclass(frozen=True, kw_only=True)
class VectorTable(Rule):
    r"""Rows that are looked up or join a sequence, in networks that normalize, have a squared length of a third.

    .. math:: \sigma = \sqrt{1/3} / \sqrt{\mathrm{channels}}

    Evidence (`docs/log/words.md`), bits per byte of a GPT-2 of 4 × 128 with 4,096 words:

    | table | bits |
    |---|---|
    | base | 2.653 |
    | × 0.4 | 2.814 |
    | the zoo's | 2.799 |
    | × 2 | 2.659 |
    """

    roles: ClassVar[frozenset[str]] = frozenset({"embedding", "token"})
    gain: float = DEFAULT_GAIN
    """Standard deviation times the root of the channels."""

    def init(self, p: ParamContext) -> Init:
        """Independent numbers of this size."""
        channels = p.spec.shape[-1] if p.spec.shape else 1
        return Init(std=self.gain / math.sqrt(channels), distribution="normal")
