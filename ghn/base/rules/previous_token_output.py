"""What reads heads that look at a previous token."""

from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ModelTraits, ParamContext
from ghn.base.init import Init
from ghn.base.previous_token import previous_token_attentions
from ghn.base.rule import Modifier


@dataclass(frozen=True, kw_only=True)
class PreviousTokenOutput(Modifier):
    """The matrix that reads heads that look at a previous token is smaller.

    What such heads bring is that of one token, and not the mean of many, which random heads make small. It belongs to
    ``previous_token_heads``: drop both or none.

    Evidence: chosen with the heads (`docs/log/heads-that-look-back.md`).
    """

    rules: ClassVar[frozenset[str] | None] = frozenset({"fan_in"})
    factor: float = 0.3
    """Factor on its standard deviation."""

    def applies(self, p: ParamContext, init: Init) -> bool:
        """Whether it is the output matrix of such an attention."""
        return p.spec.name in p.traits.once(self, lambda _: self._projections(p.traits))

    def modify(self, p: ParamContext, init: Init) -> Init:
        """Smaller by the factor."""
        return init.scaled(self.factor)

    @staticmethod
    def _projections(traits: ModelTraits) -> set[str]:
        projections = (entry.attention.projection for entry in previous_token_attentions(traits))
        return {projection.name for projection in projections if projection}
