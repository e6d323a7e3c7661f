"""Weights of the normalization before the logits of language models."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class LastNorm(Rule):
    r"""The last normalization of a language model starts at 1.75, less where the output map is the token table.

    .. math:: \mu = 1.75 \, \min(1, \sqrt{128 / \mathrm{width}}) \text{ if tied, else } 1.75

    Language models end lower with larger logits. With a tied table a token's logit with itself grows with the root of
    the width.

    Evidence (`docs/log/sizes-of-language-models.md`, `docs/log/tied-output-maps.md`), bits
    per byte: GPT-2 of 4 × 96, weight 1 / 1.5 / 2: 3.51 / 3.45 / 3.42. GPT-2 6 × 384, tied, without and with the width's
    factor: 4.15 and 4.11 at a tenth of the steps, 3.179 and 3.183 at the end.
    """

    roles: ClassVar[frozenset[str]] = frozenset({"norm_weight"})
    factor: float = 1.75
    """Factor on the weight that other normalizations have."""
    width: int = 128
    """Width above which the weight falls where the table is tied."""

    def applies(self, p: ParamContext) -> bool:
        """Whether the model looks tokens up, and the output map reads the normalization."""
        return p.traits.reads_tokens and p.feeds_last_operation

    def init(self, p: ParamContext) -> Init:
        """This number everywhere."""
        share = min(1, math.sqrt(self.width / p.spec.numel)) if p.traits.ties_tokens else 1
        return Init.vector(p.mean_or(1.0) * self.factor * share)
