"""Attention where tokens are words."""

from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Modifier


@dataclass(frozen=True, kw_only=True)
class WordAttention(Modifier):
    r"""Matrices of attention shrink in proportion to the vocabulary above 512 tokens, to 0.4 at the least.

    .. math:: \sigma \to \sigma \, \max(0.4, 512 / \max(512, \mathrm{vocabulary}))

    Of words a model learns first what each alone says; what attention adds is noise before it is trained. A branch
    starts at the square.

    Evidence (`docs/log/words.md`), bits per byte of a GPT-2 of 4 × 128 with 4,096 words, 480
    steps, positions × 0.1:

    | random | all as beside bytes | attention's output × 0.4 | queries, keys, values × 0.4 | all four |
    |---|---|---|---|---|
    | 2.674 | 2.610 | 2.588 | 2.578 | 2.573 |
    """

    rules: ClassVar[frozenset[str] | None] = frozenset({"fan_in"})
    least_share: float = 0.4
    """Share of the size that is left beside the largest vocabularies."""

    def applies(self, p: ParamContext, init: Init) -> bool:
        """Whether it is a matrix of attention, over more tokens than characters."""
        return p.traits.word_share(self.least_share) < 1 and p.in_attention

    def modify(self, p: ParamContext, init: Init) -> Init:
        """Smaller by the share."""
        return init.scaled(p.traits.word_share(self.least_share))
