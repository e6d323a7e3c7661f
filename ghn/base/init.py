"""What a rule says of one parameter: how its values start."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ghn.base.sampling import shared_vector
from ghn.graph.graph import ParamSpec

CONSTANT = "constant"
DISTRIBUTIONS = ("orthogonal", "normal", "uniform", "sinusoids", CONSTANT)

VECTOR_STD = 0.25
"""Standard deviation of what is learned of a vector at full trust, relative to its mean."""

BIAS_STD = 0.05
"""The same for vectors about zero, relative to activations of unit variance."""


@dataclass(frozen=True)
class Pattern:
    """A matrix of low rank that is added to a random one, in units of its standard deviation."""

    left: Tensor
    """Left factor, shape ``(rows, rank)``."""
    right: Tensor | None = None
    """Right factor, shape ``(columns, rank)``; None is the vector that a table's rows share, as the seed has it."""
    table: str = ""
    """Name of that table."""
    columns: int = 0
    """Entries of that vector."""

    def factors(self, seed: int) -> tuple[Tensor, Tensor]:
        """Left and right factor, on the CPU."""
        right = shared_vector(seed, self.table, self.columns)[:, None] if self.right is None else self.right
        return self.left, right


@dataclass(frozen=True, kw_only=True)
class Init:
    r"""How one parameter starts, as ``torch.nn.init`` would say it.

    Random values have mean zero and standard deviation ``std``. A constant has the value ``mean`` everywhere, and
    ``std`` is how far what a hypernetwork has learned may move it; the base alone is exactly ``mean``.
    """

    mean: float | Tensor = 0.0
    """Value of a constant: a number, or values on the CPU that broadcast to the parameter's shape."""
    std: float = 0.0
    distribution: str = "orthogonal"
    """One of ``DISTRIBUTIONS``: 'orthogonal' (rows, or columns where those are fewer), 'normal' or 'uniform'
    (independent entries), 'sinusoids' (along each column of a table of positions) or 'constant'."""
    whitened: bool = False
    """Whether the random rows are filters of pixels whose spectrum is shaped; see ``whiten_pixels``."""
    pattern: Pattern | None = None
    """What is added to the random values."""
    padding_row: int | None = None
    """Row that is zero."""

    @classmethod
    def vector(cls, mean: float) -> "Init":
        """A constant that may be moved by a quarter of its mean, or by 0.05 about zero."""
        return cls(mean=mean, std=VECTOR_STD * abs(mean) if mean else BIAS_STD, distribution=CONSTANT)

    @property
    def random(self) -> bool:
        """Whether values are drawn."""
        return self.distribution != CONSTANT

    def scaled(self, factor: float) -> "Init":
        """Mean and standard deviation times a factor."""
        return replace(self, mean=self.mean * factor, std=self.std * factor)

    def problem(self, spec: ParamSpec) -> str:
        """What is wrong with it for a parameter; empty if nothing is."""
        if self.distribution not in DISTRIBUTIONS:
            return f"distribution {self.distribution!r}, expected one of {', '.join(DISTRIBUTIONS)}"
        if not isinstance(self.std, int | float) or not 0 <= self.std < math.inf:
            return f"std {self.std!r}, expected a finite number of at least 0"
        if isinstance(self.mean, Tensor):
            if not self.random and not _broadcasts(tuple(self.mean.shape), spec.shape):
                return f"a mean of shape {tuple(self.mean.shape)}, which doesn't broadcast to {spec.shape}"
            finite = bool(torch.isfinite(self.mean).all())
        else:
            finite = isinstance(self.mean, int | float) and math.isfinite(self.mean)
        if not finite:
            return f"mean {self.mean!r}, expected finite numbers"
        if self.random and (isinstance(self.mean, Tensor) or self.mean):
            return f"mean {self.mean!r} of random values, whose mean is 0; distribution='constant' has any"
        return ""


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return torch.broadcast_shapes(shape, target) == torch.Size(target)
    except RuntimeError:
        return False
