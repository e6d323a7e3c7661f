"""Scales of residual branches that have no matrix or kernel."""

from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class ParameterFreeBranch(Rule):
    """The scale of a residual branch without a matrix or kernel, as PoolFormer's poolings, starts at zero.

    The branch is a pooling minus its input: with a scale of 0.2 every block blurs, and nothing learned on the branch
    can take that back.

    Evidence (`docs/log/poolformer.md`), a narrow PoolFormer, accuracy in % at two rates:

    | start | 2e-4 | 6e-4 |
    |---|---|---|
    | random | 36.4 ± 0.5 | 36.5 ± 0.7 |
    | base, scales of 0.2 | 36.4 ± 2.4 | 32.6 ± 0.8 |
    | poolings' scales of 1e-5 | 41.0 ± 0.4 | 39.4 ± 1.1 |
    """

    roles: ClassVar[frozenset[str]] = frozenset({"layer_scale"})

    def applies(self, p: ParamContext) -> bool:
        """Whether nothing on the branch has a matrix or kernel."""
        return p.ends_parameter_free_branch

    def init(self, p: ParamContext) -> Init:
        """Zero."""
        return Init.vector(0.0)
