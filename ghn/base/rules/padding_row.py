"""Rows of tables that stand for padding."""

from dataclasses import dataclass, replace

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Modifier


@dataclass(frozen=True, kw_only=True)
class PaddingRow(Modifier):
    """The row of a table that is looked up for padding alone is zero, as torch has it: it is never trained."""

    def applies(self, p: ParamContext, init: Init) -> bool:
        """Whether there is such a row."""
        return init.random and p.padding_row is not None

    def modify(self, p: ParamContext, init: Init) -> Init:
        """The same, with that row at zero."""
        return replace(init, padding_row=p.padding_row)
