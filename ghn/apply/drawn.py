"""How the owner of a linear map or convolution drew its matrix, if not as torch does."""

import math
from functools import cached_property

import torch
from torch import Tensor, nn

MAPS = (nn.Linear, nn.modules.conv._ConvNd)
"""Torch draws their weights uniformly within ``1 / sqrt(fan_in)``."""

LEAST_ENTRIES = 256
"""Entries of the smallest matrix whose distribution can be told."""

ENOUGH = 2**16
"""Entries that are looked at."""

LEAST_ROWS, MOST_ROWS = 4, 64
"""Rows that are looked at to see whether a matrix is orthogonal; with fewer it may be so by chance."""

AT_RULE = 0.01
"""Relative difference from the size of a prediction, below which a matrix may be one: those are orthogonal."""

NEAR = 5.0
"""Of so many uniform numbers in the whole, the largest is within this share of the bound (but for one in 150)."""

DEFAULT_SHARE = 0.85
"""Share of the deviation of torch's default, within its bound, below which a matrix was drawn smaller."""

MOST_KURTOSIS = 2.3
"""Kurtosis below which numbers are uniform, which have 1.8; normal ones have 3."""

GAINS = (1.0, 5 / 3, math.sqrt(2))
"""Gains of ``nn.init.calculate_gain``: for linear maps, tanh and rectifiers."""

SIGMAS = 3.0
"""Standard errors within which a sample has the deviation that it was drawn with."""


def is_map(module: nn.Module) -> bool:
    """Whether one can tell how torch would draw the weight of a module, which is a parameter."""
    return isinstance(module, MAPS) and "weight" in module._parameters


class DrawnMatrix:
    """The weight of a linear map or convolution, of which as many rows are read, once, as are needed to tell.

    Args:
        weight: Shape ``(out, in, *kernel)``.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.detach()
        self.numel = weight.numel()

    @cached_property
    def _values(self) -> Tensor:
        return self._weight[: max(1, ENOUGH // self._weight[0].numel())].float().cpu()

    @cached_property
    def _mean_square(self) -> float:
        return float(self._values.square().mean())

    @cached_property
    def _largest(self) -> float:
        return float(self._values.abs().max())

    @cached_property
    def is_default(self) -> bool:
        """Whether torch may have drawn it: it is within its bound, and not much smaller."""
        fan_in = self._weight[0].numel()
        within = self._largest * math.sqrt(fan_in) <= 1 + 1e-5
        return within and self._mean_square * 3 * fan_in > DEFAULT_SHARE**2

    def distribution(self, rule: float) -> str:
        """Name what of ``nn.init`` it was drawn from; empty if that is torch's default, or unknown.

        Recognized are Xavier's and He's, uniform and normal, and orthogonal rows or columns of any gain.

        Args:
            rule: Size of what would be predicted, and may have been before: that is no choice.

        References:
            https://docs.pytorch.org/docs/stable/nn.init.html
        """
        weight = self._weight
        fan_in, fan_out = weight[0].numel(), weight[:, 0].numel()
        count, size = self._values.numel(), math.sqrt(self._mean_square)
        at_rule = abs(size / rule - 1) < AT_RULE
        if _is_orthogonal(weight):
            return "" if at_rule else f"orthogonal, gain {size * math.sqrt(max(fan_in, len(weight))):.3g}"
        if self.is_default:
            return ""
        sizes = {
            **{f"Xavier, gain {gain:.3g}": gain * math.sqrt(2 / (fan_in + fan_out)) for gain in GAINS},
            **{f"He, gain {gain:.3g}": gain / math.sqrt(fan_in) for gain in GAINS},
            **{f"He by fan-out, gain {gain:.3g}": gain / math.sqrt(fan_out) for gain in GAINS},
        }
        kurtosis = float((self._values / size).pow(4).mean()) if size else 0.0
        for name, deviation in sizes.items():
            bound = math.sqrt(3) * deviation
            if kurtosis < MOST_KURTOSIS and bound * (1 - NEAR / count) <= self._largest <= bound * (1 + 1e-5):
                return f"{name}, uniform"
        name = min(sizes, key=lambda name: abs(size - sizes[name]))
        near = abs(size / sizes[name] - 1) < SIGMAS / math.sqrt(2 * count)
        normal = abs(kurtosis - 3) < SIGMAS * math.sqrt(24 / count)
        prediction = at_rule and weight.dim() > 2  # point by point orthogonal
        return f"{name}, normal" if near and normal and not prediction else ""


def _is_orthogonal(weight: Tensor) -> bool:
    """Whether the first rows, or columns where those are fewer, are orthogonal and of one length."""
    matrix = weight.flatten(1)
    matrix = (matrix if len(matrix) <= matrix.shape[1] else matrix.mT)[:MOST_ROWS].float().cpu()
    product = matrix @ matrix.mT
    length = float(product.diagonal().mean())
    error = float((product - length * torch.eye(len(matrix))).abs().max())
    return len(matrix) >= LEAST_ROWS and error < 1e-3 * length
