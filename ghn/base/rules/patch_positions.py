"""Tables of positions where no tokens are looked up."""

from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class PatchPositions(Rule):
    """Positions that are added to patches, of unit variance or less, are half as large.

    The zoos' 0.02 leaves a vision transformer without positions until it has learned them. Size matters here and shape
    doesn't: white positions do as well as any sinusoids.

    Evidence (`docs/log/positions-of-images.md`), ViT of 4 × 96 on CIFAR-10 at 16×16, accuracy
    in % after 400 steps:

    | positions | accuracy |
    |---|---|
    | random (timm's own) | 35.8 |
    | base, 0.06 | 41.0 |
    | base, 0.5 | 45.1 |
    | base, 1.0 | 42.9 |
    | base, sinusoids of 0.7 | 44.2 |
    """

    roles: ClassVar[frozenset[str]] = frozenset({"position"})
    std: float = 0.5
    """Standard deviation, next to patches of about unit variance."""

    def applies(self, p: ParamContext) -> bool:
        """Whether the model looks no tokens up."""
        return not p.traits.reads_tokens

    def init(self, p: ParamContext) -> Init:
        """Independent numbers of this size."""
        return Init(std=self.std, distribution="normal")
