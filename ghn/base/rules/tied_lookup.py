"""Tables that are looked up in after a constant factor."""

from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Modifier


@dataclass(frozen=True, kw_only=True)
class TiedLookup(Modifier):
    r"""A token table that is the output map as well makes up for a constant c that multiplies what it reads there.

    .. math:: \sigma \to \sigma / c

    T5 multiplies by one over the root of the width before it looks words up in the table of its tokens.

    References:
        T5, https://arxiv.org/abs/1910.10683
    """

    rules: ClassVar[frozenset[str] | None] = frozenset(
        {"token_positions", "sequence_table", "unnormalized_table", "vector_table"}
    )

    def applies(self, p: ParamContext, init: Init) -> bool:
        """Whether there is such a constant."""
        return p.lookup_factor != 1

    def modify(self, p: ParamContext, init: Init) -> Init:
        """Over the constant."""
        return init.scaled(1 / p.lookup_factor)
