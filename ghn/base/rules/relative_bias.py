"""Tables of attention biases by relative position."""

from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class RelativeBias(Rule):
    """Tables of attention biases by relative position (Swin's, BEiT's, T5's) start small, as the zoos draw them.

    References:
        Swin Transformer, https://arxiv.org/abs/2103.14030
    """

    roles: ClassVar[frozenset[str]] = frozenset({"relative_bias"})
    std: float = 0.02
    """Standard deviation of what is added to attention's scores."""

    def init(self, p: ParamContext) -> Init:
        """Independent numbers of this size."""
        return Init(std=self.std, distribution="normal")
