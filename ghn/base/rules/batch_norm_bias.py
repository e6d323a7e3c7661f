"""Biases of batch normalizations that only rectifiers read."""

from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class BatchNormBias(Rule):
    r"""Biases of batch normalizations that only rectifiers read start at 1 in networks with eight of them or more.

    What they read has unit variance, so that five in six units pass instead of half, and the network is closer to a
    linear one. Where such a pair ends a residual branch the bias is damped as the weight is. Behind other
    normalizations, which keep the mean of the next layer, it costs as much; StarNet loses by it behind the stem.
    Through few layers rectifiers lose little, and a network that is nearly linear learns more slowly.

    Evidence (`docs/log/batchnorm-bias.md`, `docs/log/users-networks.md`),
    accuracy in %:

    | network (such normalizations) | random | 0 | 1 |
    |---|---|---|---|
    | ResNet-18 (8) | 36.9 | 39.0 | 39.8 |
    | MobileNetV2, width 0.35 | | 22.1 | 31.1 |
    | VGG of 12 layers (11) | 37.9 | 38.3 | 42.6 |
    | VGG of 6 layers (5) | 47.2 | 49.2 | 44.0 |
    | two convolutions (1) | 43.4 | 43.8 | 38.4 |
    """

    roles: ClassVar[frozenset[str]] = frozenset({"norm_bias"})
    mean: float = 1.0
    """Value of the bias, in units of what the rectifier reads."""
    least_norms: int = 8
    """Fewer such normalizations than this, not counting the stem's, leave biases at zero."""

    def applies(self, p: ParamContext) -> bool:
        """Whether rectifiers alone read the batch normalization, and there are enough of them."""
        return p.feeds_only_rectifiers and p.traits.rectified_batch_norms >= self.least_norms

    def init(self, p: ParamContext) -> Init:
        """This number everywhere."""
        return Init.vector(self.mean)
