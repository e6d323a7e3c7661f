"""Linear maps of networks with normalization, but without attention and tokens."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class MlpMixer(Rule):
    r"""Linear maps of normalized networks that neither attend nor read tokens follow Glorot and Bengio, undamped.

    .. math:: \sigma = \sqrt{2 / (\mathrm{fan_{in}} + \mathrm{fan_{out}})}

    As MLP-Mixers are drawn. Language models without attention (Mamba, RWKV) are damped as transformers are.

    Evidence (`docs/log/52-families.md`), bits per byte after 60 steps:

    | | random | undamped | damped |
    |---|---|---|---|
    | Mamba | 3.697 | 3.865 | 3.491 |
    | RWKV | 3.851 | 3.861 | 3.773 |

    References:
        MLP-Mixer, https://arxiv.org/abs/2105.01601; Glorot and Bengio (2010)
    """

    roles: ClassVar[frozenset[str]] = frozenset({"linear"})

    def applies(self, p: ParamContext) -> bool:
        """Whether the model normalizes, and neither attends nor looks tokens up; output maps are classifiers."""
        traits = p.traits
        mixes = bool(traits.norms) and not traits.has_attention and not traits.reads_tokens
        return mixes and not p.feeds_outputs

    def init(self, p: ParamContext) -> Init:
        """Orthogonal rows of this size; not smaller at the end of a residual branch."""
        return Init(std=math.sqrt(2 / (p.fan_in + p.fan_out)))
