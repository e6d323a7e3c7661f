"""Tables of vectors in networks without normalization."""

from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class UnnormalizedTable(Rule):
    """Tables of vectors are of 0.3 where nothing normalizes and nothing reads them as a sequence.

    Those of unit variance, as torch draws them, learn slowly.

    Evidence (`docs/log/no-normalization.md`; `benchmarks/results/users.csv`), losses relative
    to the own start, unit variance → 0.3: recommender 0.97 → 0.04, categories 1.39 → 0.5.
    """

    roles: ClassVar[frozenset[str]] = frozenset({"embedding"})
    std: float = 0.3
    """Standard deviation of each number."""

    def applies(self, p: ParamContext) -> bool:
        """Whether nothing normalizes anywhere."""
        return not p.traits.norms

    def init(self, p: ParamContext) -> Init:
        """Independent numbers of this size."""
        return Init(std=self.std, distribution="normal")
