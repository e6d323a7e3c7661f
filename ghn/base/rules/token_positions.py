"""Tables of positions beside tokens."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule
from ghn.base.rules.gains import DEFAULT_GAIN


@dataclass(frozen=True, kw_only=True)
class TokenPositions(Rule):
    r"""Positions that are added to tokens are sinusoids with random phases, and small, above all beside words.

    .. math:: \sigma = \frac{\sqrt{1/3}}{\sqrt{\mathrm{channels}}} \, \max(0.1, 512 / \max(512, \mathrm{vocabulary}))

    Order is what attention first learns from a text of characters: here shape matters, and size must stay small. Beside
    words, positions drown what each word says.

    Evidence (`docs/log/positions-of-texts.md`, `docs/log/words.md`), bits per
    byte of small GPT-2s at the end:

    | 384 bytes | | 4,096 words | |
    |---|---|---|---|
    | white, 0.06 | 3.34 | random | 2.674 |
    | sinusoids of 1706.03762, 0.06 | 3.25 | base | 2.653 |
    | these, 0.06 | 3.21 | base, positions × 0.4 | 2.621 |
    | these, 0.12 | 3.30 | base, positions × 0.1 | 2.610 |

    References:
        Transformers, https://arxiv.org/abs/1706.03762
    """

    roles: ClassVar[frozenset[str]] = frozenset({"position"})
    gain: float = DEFAULT_GAIN
    """Standard deviation times the root of the channels."""
    least_share: float = 0.1
    """Share that is left of it beside the largest vocabularies."""

    def init(self, p: ParamContext) -> Init:
        """Sinusoids along the channels, of this size."""
        channels = p.spec.shape[-1] if p.spec.shape else 1
        std = self.gain / math.sqrt(channels) * p.traits.word_share(self.least_share)
        return Init(std=std, distribution="sinusoids")
