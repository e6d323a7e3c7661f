"""Classifiers of models that cut images into patches."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class PatchClassifier(Rule):
    r"""The output map of a model of patches, which reads normalized numbers, makes logits of unit variance.

    .. math:: \sigma = 1 / \sqrt{\mathrm{fan_{in}}}

    Evidence (`docs/log/slow-vision-transformers.md`), accuracy in % after 10 and 100 % of 480
    steps, ViT 4 × 192 without a stem bias:

    | gain | 10 % | 100 % |
    |---|---|---|
    | 2 | 19.6 | 43.9 ± 0.6 |
    | 1 | 20.1 | 44.5 ± 0.3 |
    | torch's default, 0.58 (attention undamped) | 24.8 | 43.3 ± 0.4 |
    """

    roles: ClassVar[frozenset[str]] = frozenset({"linear"})
    gain: float = 1.0
    """Standard deviation times the root of the fan-in. Twice that ends as high, but is behind for the first fifth;
    mixers end lower with torch's default."""

    def applies(self, p: ParamContext) -> bool:
        """Whether it makes an output of a model whose only convolution cuts patches."""
        return p.traits.cuts_patches and not p.traits.reads_tokens and p.feeds_outputs

    def init(self, p: ParamContext) -> Init:
        """Orthogonal rows of this size."""
        return Init(std=self.gain / math.sqrt(p.fan_in))
