"""Tables of tokens that are read as a sequence, in networks without normalization."""

from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule

SEQUENCE = frozenset({"recurrent", "conv", "pad"})
"""What reads a table's vectors as a sequence, beside attention."""


@dataclass(frozen=True, kw_only=True)
class SequenceTable(Rule):
    """Tables that attention, recurrent layers or kernels read have unit variance where nothing normalizes.

    Nothing makes them larger on the way, and what reads sequences waits for that.

    Evidence (`docs/log/users-losers.md`; `benchmarks/results/users.csv`), losses relative to
    the own start: GPT without norms 1.09 → 0.98, dilated convolutions 1.03 → 1.00.
    """

    roles: ClassVar[frozenset[str]] = frozenset({"embedding"})
    std: float = 1.0
    """Standard deviation of each number, as torch draws them."""

    def applies(self, p: ParamContext) -> bool:
        """Whether nothing normalizes, and something reads sequences."""
        sequence = p.traits.has_attention or not p.readers.isdisjoint(SEQUENCE)
        return not p.traits.norms and sequence

    def init(self, p: ParamContext) -> Init:
        """Independent numbers of this size."""
        return Init(std=self.std, distribution="normal")
