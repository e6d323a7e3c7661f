"""Kernels that read pixels: what is known of natural images before any training."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from ghn.base.context import ParamContext, kernel_points
from ghn.base.init import Init
from ghn.base.rule import Modifier
from ghn.graph.ops import NORMS

WHITENING = 0.75
"""Share of the spectrum's slope that filters take away: 0 leaves them white, 1 makes their outputs' spectrum white."""

FLOOR = 0.02
"""Power, relative to the mean, that is added to every frequency: faint ones are mostly noise."""

OPPONENTS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))
"""Axes along which colours of natural images are uncorrelated: brightness, red to blue, and green to the others."""

OPPONENT_POWERS = (1.0, 1 / 12, 1 / 50)
"""Power along each of ``OPPONENTS``."""


@dataclass(frozen=True, kw_only=True)
class WhitenedFilters(Modifier):
    r"""Filters of pixels that normalizations alone read answer to details and colours as they do to brightness.

    .. math:: W \to W \, \Sigma^{-1/2 \cdot 0.75}, \qquad
        \Sigma = \text{power that falls with the frequency, in three opponent colours}

    Nearly all variance of natural images is slow brightness, so the outputs of white filters are nearly the same few
    numbers. Where no normalization reads them (ViT), their size would multiply the activations of noise.

    Evidence (`docs/log/whitened-filters.md`, `docs/log/white-3x3-filters.md`), accuracy in
    %, white → whitened: ResNet-18 (7×7) 40.4 → 42.2, ViT 41.7 → 43.0, DenseNet (7×7) 37.9 → 38.8, MobileViT (3×3)
    30.6 → 28.5.

    References:
        Field (1987), "Relations between the statistics of natural images and the response properties of cortical
        cells"; whitening as a first layer: https://arxiv.org/abs/2404.00498
    """

    rules: ClassVar[frozenset[str] | None] = frozenset({"conv_batch_norm", "fan_in", "fan_out"})
    least_points: int = 16
    """Points of the smallest kernel that is whitened: filters of 3×3 gain nothing by it, or lose."""

    def applies(self, p: ParamContext, init: Init) -> bool:
        """Whether it reads images by so many pixels at once, and normalizations alone read it."""
        large = p.filters_images and kernel_points(p.spec) >= self.least_points
        return large and bool(p.readers) and p.readers <= NORMS

    def modify(self, p: ParamContext, init: Init) -> Init:
        """The same, whitened when it is drawn."""
        return replace(init, whitened=True)


def whiten_pixels(matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Shape the spectrum of white filters so that they answer to details and colours as they do to brightness.

    Nearly all variance of natural images is brightness that changes slowly, so the outputs of white filters are nearly
    the same few numbers. That colours are rarer and fine details fainter holds for all of them, so it needs no data.

    Args:
        matrix: White filters, shape ``(rows, columns)``.
        shape: Channels and kernel, whose product is the number of columns; three channels are red, green and blue.

    Returns:
        Same shape. Outputs for natural images have the variance that those of the white filters have; for that the
        filters are several times larger, and keep their directions for longer while they are trained.

    References:
        Field (1987), "Relations between the statistics of natural images and the response properties of cortical
        cells"; whitening as a first layer: https://arxiv.org/abs/2404.00498
    """
    gains, bases = _gains(shape), [_opponents(), *map(_cosines, shape[1:])]
    kernels = matrix.reshape(-1, *shape)
    for inverse in (False, True):
        for axis, basis in enumerate(bases, start=1):
            if kernels.shape[axis] == len(basis):
                turn = basis.mT if inverse else basis
                kernels = torch.tensordot(kernels, turn.to(kernels), dims=([axis], [1])).movedim(-1, axis)
        kernels = kernels if inverse else kernels * gains.to(kernels)
    return kernels.reshape(matrix.shape)


@lru_cache(maxsize=16)
def _gains(shape: tuple[int, ...]) -> Tensor:
    """Factor on each opponent axis and frequency, shape as that of the kernels."""
    channels, *kernel = shape
    squares = torch.zeros(kernel)
    for axis, size in enumerate(kernel):
        squares = squares + (torch.arange(size) ** 2).reshape(-1, *[1] * (len(kernel) - axis - 1))
    # Close to one over the square of the frequency, in half waves per kernel.
    power = (squares + 0.15) ** -1.3
    colours = torch.tensor(OPPONENT_POWERS if channels == len(OPPONENTS) else [1.0] * channels)
    power = colours.reshape(-1, *[1] * len(kernel)) * power / power.mean()
    power = power + FLOOR * power.mean()
    gains = power ** (-WHITENING / 2)
    return gains * (power.sum() / (power * gains.square()).sum()).sqrt()


def _opponents() -> Tensor:
    axes = torch.tensor(OPPONENTS)
    return axes / axes.norm(dim=1, keepdim=True)


@lru_cache(maxsize=64)
def _cosines(size: int) -> Tensor:
    """Orthonormal cosine basis (DCT-II), shape ``(size, size)``, rows by frequency."""
    waves = torch.cos(math.pi / size * (torch.arange(size) + 0.5) * torch.arange(size)[:, None])
    return waves / waves.norm(dim=1, keepdim=True)
