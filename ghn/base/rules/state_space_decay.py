"""Decays of state-space models."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from ghn.base.context import ParamContext
from ghn.base.init import CONSTANT, VECTOR_STD, Init
from ghn.base.rule import Rule


@dataclass(frozen=True, kw_only=True)
class StateSpaceDecay(Rule):
    r"""Logarithms of a state space's decays, channels × states, start as S4D-real has them.

    .. math:: A_{cn} = \log n, \qquad n = 1, 2, \dots

    References:
        S4D, https://arxiv.org/abs/2206.11893
    """

    roles: ClassVar[frozenset[str]] = frozenset({"log_scale"})
    std: float = VECTOR_STD * math.log(10)
    """Standard deviation of what is learned at full trust."""

    def applies(self, p: ParamContext) -> bool:
        """Whether it is a matrix, and the way to its operation doesn't say what it should be."""
        return p.spec.centre is None and len(p.spec.shape) == 2 and min(p.spec.shape) > 1

    def init(self, p: ParamContext) -> Init:
        """These numbers along the states."""
        states = torch.arange(1, p.spec.shape[-1] + 1, dtype=torch.float32)
        return Init(mean=states.log(), std=self.std, distribution=CONSTANT)
