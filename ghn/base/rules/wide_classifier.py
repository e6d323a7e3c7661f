"""Wide classifiers of convolutional networks."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Modifier


@dataclass(frozen=True, kw_only=True)
class WideClassifier(Modifier):
    r"""Classifiers of networks with batch normalization shrink as 1/fan-in above 128 inputs.

    .. math:: \sigma \to \sigma \, \sqrt{128 / \mathrm{fan_{in}}}

    Each step of an optimizer such as Adam changes their logits in proportion to the fan-in.

    Evidence (`docs/log/wide-classifiers.md`), accuracy in % by factor on torch's default:

    | | width | × 1 | × 0.6 | × 0.3 | × 0.1 |
    |---|---|---|---|---|---|
    | MobileViT-XXS | 320 | 32.9 | 35.2 | 34.1 | |
    | ResNet-18 | 320 | 42.0 | 42.7 | | |
    | MobileNetV2, width 0.35 | 1280 | 17.8 | | 18.8 | 19.3 |
    | DenseNet | 104 | 37.7 | | 36.6 | |

    References:
        Maximal update parametrization, https://arxiv.org/abs/2203.03466
    """

    rules: ClassVar[frozenset[str] | None] = frozenset({"classifier", "patch_classifier"})
    width: int = 128
    """Number of inputs from which weights shrink."""

    def applies(self, p: ParamContext, init: Init) -> bool:
        """Whether the model has batch normalization, and the classifier is wide."""
        return "batch_norm" in p.traits.norms and p.fan_in > self.width

    def modify(self, p: ParamContext, init: Init) -> Init:
        """Smaller by the root of the width."""
        return init.scaled(math.sqrt(self.width / p.fan_in))
