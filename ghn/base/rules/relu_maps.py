"""Language models' maps that an activation reads."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import RECTIFIERS, ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class ReluMaps(Rule):
    r"""A linear map that a rectifier reads, in a model that looks tokens up, keeps the variance of what it reads.

    .. math:: \sigma = 1 / \sqrt{\mathrm{fan_{in}}}

    Zoos start such maps with half of that, and their language models end with more bits per byte.

    Evidence (`docs/log/sizes-of-language-models.md`), bits per byte of models of 4 × 96:

    | | base | last norm × 2 | first map × 1.5 | both |
    |---|---|---|---|---|
    | GPT-2, 200 steps | 3.47 | 3.39 | 3.43 | 3.34 |
    | Llama, 200 steps | 3.20 | 3.12 | | 3.11 |
    """

    roles: ClassVar[frozenset[str]] = frozenset({"linear"})
    gain: float = 1.0
    """Standard deviation times the root of the fan-in."""

    def applies(self, p: ParamContext) -> bool:
        """Whether the model looks tokens up and a rectifier reads the map."""
        return p.traits.reads_tokens and not p.readers.isdisjoint(RECTIFIERS)

    def init(self, p: ParamContext) -> Init:
        """Orthogonal rows of this size; not smaller at the end of a residual branch."""
        return Init(std=self.gain / math.sqrt(p.fan_in))
