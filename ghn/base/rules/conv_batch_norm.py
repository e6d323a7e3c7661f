r"""Convolutions that batch statistics normalize."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ghn.base.context import BATCH_STATISTICS, ParamContext
from ghn.base.init import Init
from ghn.base.rule import Rule
from ghn.base.rules.gains import RELU_GAIN


@dataclass(frozen=True, kw_only=True)
class ConvBatchNorm(Rule):
    r"""A convolution before a batch, group or instance normalization is as large as He et al. say, or as a step.

    .. math:: \sigma = \min\left(\sqrt{2 / \mathrm{fan_{out}}},\;
        \eta \,/\, (\mathrm{fan_{in}}^{-1/2} + \mathrm{fan_{out}}^{-1/2})\right)

    A normalized kernel's size changes nothing but how fast it learns. Adam moves every entry by the rate η, so at most
    by a matrix of spectral norm η √(fan_in · fan_out); a kernel of that size can turn in one step. Narrow and depthwise
    kernels of the size of He et al. are the slowest of their network. In stems, and where something else reads the
    result, size matters: there it is that of He et al.

    Evidence (`docs/log/small-kernels.md`; `benchmarks/results/held-out-cpu`), accuracy in %:

    | network | random | He et al. | this rule |
    |---|---|---|---|
    | RegNetX-200 | 32.6 | 35.9 | 38.5 |
    | MobileNetV2 | 24.7 | 39.1 | 42.0 |
    | GhostNet | 31.9 | 36.8 | 40.9 |
    | StarNet-S1 | 48.8 | 48.9 | 46.7 ± 1.5 |

    References:
        He et al., https://arxiv.org/abs/1502.01852; the spectral condition, https://arxiv.org/abs/2310.17813
    """

    roles: ClassVar[frozenset[str]] = frozenset({"conv"})
    gain: float = RELU_GAIN
    """Gain of He et al., over the root of the fan-out, as ResNets have it."""
    rate: float = 0.03
    """Learning rate of Adam at which a step may be as large as the kernel, in spectral norm."""

    def applies(self, p: ParamContext) -> bool:
        """Whether batch statistics are taken of its result."""
        return not p.readers.isdisjoint(BATCH_STATISTICS)

    def init(self, p: ParamContext) -> Init:
        """The lesser of both sizes, where nothing but the normalization sees it."""
        std = self.gain / math.sqrt(p.fan_out)
        if p.readers <= BATCH_STATISTICS and not p.in_stem:
            std = min(std, self.rate / (1 / math.sqrt(p.fan_in) + 1 / math.sqrt(p.fan_out)))
        return Init(std=std)
