"""Arms of a comparison: what a freshly constructed model's parameters are replaced with before it is trained.

Every arm starts from the same construction (the zoo's own initialization under the run's seed), so what an arm keeps is
equal in all of them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ghn.apply.knowledge import Examples
from ghn.apply.mimetic import mimetic_attentions_, sinusoids
from ghn.apply.rules import split_arm
from ghn.base import RuleSet, default_rules
from ghn.base.blocks import keyed_generator
from ghn.decoder import Learned
from ghn.errors import ConfigError, did_you_mean
from ghn.graph.ops import MIXING_ROLES
from ghn.shortcut import load_hypernetwork
from ghn.tracing.trace import trace

if TYPE_CHECKING:
    from ghn.apply.report import Report


@dataclass(frozen=True, kw_only=True)
class ArmSettings:
    """What an arm may go by beside the model."""

    seed: int = 0
    """Of what the arm draws; the model was constructed under it."""
    inputs: Any = None
    """Example inputs of the model; found automatically if missing."""
    checkpoint: str | None = None
    """Of the arms that predict, as ``ghn.GHN.from_pretrained`` takes it."""
    examples: Examples | None = None
    """Labelled examples of the data, if known."""


Arm = Callable[[nn.Module, ArmSettings], str]
"""Writes into a model in place; returns what it changed, in a few words."""


def random_(model: nn.Module, settings: ArmSettings) -> str:
    """Keep the zoo's own initialization: the model was constructed under the seed."""
    return ""


@torch.no_grad()
def orthogonal_(model: nn.Module, settings: ArmSettings) -> str:
    """Make every matrix orthogonal, with the root mean square that it has; the rest stays.

    Matrices are the weights of linear maps and convolutions (flattened to one row per output channel, as in
    ``torch.nn.init.orthogonal_``), and each of a bank of experts. Tables of vectors, biases, normalizations and
    matrices of zeros stay.

    References:
        Saxe et al., https://arxiv.org/abs/1312.6120
    """
    parameters = dict(model.named_parameters())
    changed = 0
    for spec in trace(model, settings.inputs).params:
        if spec.role not in MIXING_ROLES or len(spec.shape) < 2:
            continue
        parameter = parameters[spec.name]
        generator = keyed_generator(_CPU, "orthogonal", settings.seed, spec.name)
        bank = spec.axes[0] == "expert"
        for matrix in parameter if bank else [parameter]:
            changed += _orthogonalize_(matrix, generator)
    return f"{changed} matrices made orthogonal"


@torch.no_grad()
def mimetic_(model: nn.Module, settings: ArmSettings) -> str:
    """Make query·key of each attention layer resemble the identity, and value·projection its negative.

    The paper's hyperparameters for vision are used throughout. Learned tables of positions become sinusoids in models
    that look no tokens up; with tokens, whose vectors start small, positions would drown them. The rest stays.

    References:
        Trockman and Kolter, https://arxiv.org/abs/2305.09828
    """
    graph = trace(model, settings.inputs)
    written, layers = mimetic_attentions_(model, graph, keyed_generator(_CPU, "mimetic", settings.seed))
    tables = 0
    if not any(spec.role == "embedding" for spec in graph.params):
        parameters = dict(model.named_parameters())
        for spec in graph.params:
            if spec.role == "position" and spec.axes[-2:] == ("table", "channel"):
                parameters[spec.name].copy_(sinusoids(*spec.shape[-2:]).to(parameters[spec.name]))
                tables += 1
    return f"{written} of {layers} attention layers and {tables} position tables written"


def ghn_(
    model: nn.Module, settings: ArmSettings, rules: RuleSet | None = None, learned: Learned = True
) -> str:
    """Predict the parameters with a trained hypernetwork."""
    net = load_hypernetwork(settings.checkpoint)
    report = net.init_(
        model, settings.inputs, settings.seed, learned, examples=settings.examples, rules=rules
    )
    return _summary(report)


base_ = partial(ghn_, learned=False)
"""Predict the parameters with the same hypernetwork as if it had never been trained: its base alone."""

ARMS: dict[str, Arm] = {
    "ghn": ghn_,
    "base": base_,
    "random": random_,
    "orthogonal": orthogonal_,
    "mimetic": mimetic_,
}
"""Names that a comparison takes; a new arm is one entry."""

_CPU = torch.device("cpu")
"""Where random numbers are drawn: the same on every machine."""

NEEDS_CHECKPOINT = ("ghn", "base")


def arm_of(name: str) -> Arm:
    """The arm of a name from ``ARMS``, or of ``ghn-without-RULE+RULE`` or ``base-without-RULE``.

    Raises:
        ConfigError: If there is no such arm or rule; suggests another.
    """
    kind, without = split_arm(name)
    if kind not in ARMS or (without and kind not in NEEDS_CHECKPOINT):
        known = ", ".join(NEEDS_CHECKPOINT if without else ARMS)
        raise ConfigError(
            f"unknown initialization {kind!r}; expected some of {known}.{did_you_mean(kind, ARMS)}"
        )
    if not without:
        return ARMS[kind]
    return partial(ghn_, learned=kind == "ghn", rules=default_rules().without(*without))


def needs_checkpoint(name: str) -> bool:
    """Whether an arm predicts by a hypernetwork."""
    return split_arm(name)[0] in NEEDS_CHECKPOINT


def _orthogonalize_(parameter: Tensor, generator: torch.Generator) -> bool:
    rows = parameter.shape[0]
    rms = parameter.detach().float().square().mean().sqrt()
    if not rms or min(rows, parameter.numel() // rows) == 1:
        return False
    drawn = torch.empty(rows, parameter.numel() // rows)
    nn.init.orthogonal_(drawn, gain=math.sqrt(max(drawn.shape)), generator=generator)
    parameter.copy_(drawn.reshape(parameter.shape).to(parameter.device) * rms)
    return True


def _summary(report: "Report") -> str:
    rules = ", ".join(f"{rule} ({len(entries)})" for rule, entries in report.by_rule().items() if rule)
    first = str(report).splitlines()[0]
    why = f" ({report.origin})" if report.origin else ""
    return f"{first}; {report.learned:.1%} of the start is learned{why}; tensors by rule: {rules}"
