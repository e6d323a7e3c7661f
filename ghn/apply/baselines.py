"""Arms of a comparison: what a freshly constructed model's parameters are replaced with before it is trained.

Every arm starts from the same construction (the zoo's own initialization under the run's seed), so what an arm keeps is
equal in all of them.
"""

import math
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from ghn.apply.report import Report
    from ghn.hypernetwork import GHN

Arm = Callable[[nn.Module, int, Any, str | None], str]
"""Writes into a model in place, given the seed, example inputs (None: found automatically) and the checkpoint.

Returns what it changed, in a few words.
"""


def random_(model: nn.Module, seed: int, inputs: Any = None, checkpoint: str | None = None) -> str:
    """Keep the zoo's own initialization: the model was constructed under the seed."""
    return ""


def orthogonal_(model: nn.Module, seed: int, inputs: Any = None, checkpoint: str | None = None) -> str:
    """Make every matrix orthogonal, with the root mean square that it has; the rest stays.

    Matrices are the weights of linear maps and convolutions (flattened to one row per output channel, as in
    ``torch.nn.init.orthogonal_``). Tables of vectors, biases, normalizations and matrices of zeros stay.

    References:
        Saxe et al., https://arxiv.org/abs/1312.6120
    """
    changed = 0
    for module_name, module in model.named_modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            continue
        for name, parameter in module.named_parameters(module_name, recurse=False):
            if parameter.ndim == 2 or (isinstance(module, nn.modules.conv._ConvNd) and parameter.ndim > 2):
                changed += _orthogonalize_(parameter, generator_for(seed, name))
    return f"{changed} matrices made orthogonal"


def ghn_(model: nn.Module, seed: int, inputs: Any = None, checkpoint: str | None = None) -> str:
    """Predict the parameters with a trained hypernetwork."""
    return _summary(load_hypernetwork(checkpoint).init_(model, inputs, seed))


def base_(model: nn.Module, seed: int, inputs: Any = None, checkpoint: str | None = None) -> str:
    """Predict the parameters with the same hypernetwork as if it had never been trained: its base alone."""
    return _summary(load_hypernetwork(checkpoint).init_(model, inputs, seed, learned=False))


ARMS: dict[str, Arm] = {
    "ghn": ghn_,
    "base": base_,
    "random": random_,
    "orthogonal": orthogonal_,
}
"""Names that a comparison takes; a new arm is one entry."""

NEEDS_CHECKPOINT = ("ghn", "base")


@lru_cache(maxsize=2)
def load_hypernetwork(checkpoint: str | None) -> "GHN":
    """Load a checkpoint once per process; see ``GHN.from_pretrained``."""
    from ghn.hypernetwork import GHN  # imports torch_geometric, which other arms do without

    return GHN.from_pretrained(checkpoint)


def generator_for(seed: int, name: str) -> torch.Generator:
    """Random numbers of one parameter: they don't depend on which others are drawn, or in what order."""
    return torch.Generator().manual_seed((seed << 32) + zlib.crc32(name.encode()))


@torch.no_grad()
def _orthogonalize_(parameter: nn.Parameter, generator: torch.Generator) -> bool:
    rows = parameter.shape[0]
    rms = parameter.detach().float().square().mean().sqrt()
    if not rms or min(rows, parameter.numel() // rows) == 1:
        return False
    drawn = torch.empty(rows, parameter.numel() // rows)
    nn.init.orthogonal_(drawn, gain=math.sqrt(max(drawn.shape)), generator=generator)
    parameter.copy_(drawn.reshape(parameter.shape).to(parameter.device) * rms)
    return True


def _summary(report: "Report") -> str:
    return str(report).splitlines()[0]
