"""Biases of a first convolution before layer normalizations."""

from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class StemBias(Rule):
    """A first convolution has random biases where all normalizations forget how long a vector is.

    They are as large as what the convolution makes of an image. Without them the first layer normalization takes away
    how bright a patch is and how much contrast it has, and leaves the direction alone. A table of positions does the
    same, and with both a vision transformer learns more slowly at first.

    Evidence (`docs/log/stem-bias.md`), accuracy in %:

    | std | MLP-Mixer | ConvNeXt | Swin 6 × 384 |
    |---|---|---|---|
    | 0 | 39.3 ± 0.6 | 39.4 ± 0.3 | 34.2 ± 0.2 (random 35.2 ± 0.2) |
    | 0.2 | 41.0 ± 0.6 | 40.5 ± 0.6 | |
    | 0.5 | 42.5 ± 0.8 | 40.3 ± 0.7 | 36.9 ± 0.8 |
    | 1.0 | 41.1 ± 0.6 | 39.2 ± 0.6 | |
    """

    roles: ClassVar[frozenset[str]] = frozenset({"bias"})
    std: float = 0.5
    """Standard deviation, next to activations of about 0.58."""

    def applies(self, p: ParamContext) -> bool:
        """Whether it is a stem's, before layer or RMS normalizations, and no table of positions is added."""
        return p.in_stem and p.traits.forgets_lengths and not p.traits.has_positions

    def init(self, p: ParamContext) -> Init:
        """Independent numbers of this size."""
        return Init(std=self.std, distribution="normal")
