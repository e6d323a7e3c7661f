"""Parameters whose values somebody chose: what their owner wrote an initialization for is kept, and reported."""

import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ghn.apply.drawn import LEAST_ENTRIES, DrawnMatrix, is_map
from ghn.base import Init, ModelTraits, ParamContext, RuleSet, default_rules
from ghn.base.predicted import predicted_params
from ghn.graph.graph import ComputationGraph
from ghn.graph.ops import MIXING_ROLES
from ghn.settings import own_settings
from ghn.tensors import is_distributed

ZOOS = frozenset({"timm", "torchvision", "transformers"})
"""Packages whose initializations the rules were measured against, and replace: what they set to zero, too."""

MULTIPLIERS = frozenset({"scale", "log_scale", "shift", "slope"})
"""Roles without a default: whoever makes such a parameter says what it starts at."""

SAMPLE = 4096
"""Values that are looked at, spread over the tensor."""

FAR = 2.0
"""Torch draws a bias within one over the root of what its operation sums; one of so many times that was chosen."""

FEW = 8
"""Random numbers hardly repeat: where fewer than one value in so many is distinct, somebody chose them."""

SMALL = 50.0
"""A matrix that is so many times smaller than its rule says was made small: zoos' smallest are about a twentieth."""

SMALL_EDGE = 8.0
"""The same of maps that make the output (the last one of a policy) and of tables: no depth explains their size."""

SMALL_TABLE = 2.0
"""The same of tables whose rule is torch's default, of unit variance: whoever draws them smaller has a reason."""

LARGE = 2.5
"""A matrix so many times larger than its rule, with a known number behind it that is as small, is meant to be so: it is
some form of the neural tangent kernel's parametrization."""

OVERRIDE = "keep_deliberate=False predicts it"


@own_settings()
def deliberate(model: nn.Module, graph: ComputationGraph, rules: RuleSet | None = None) -> dict[str, str]:
    """Find the parameters that their owner initialized deliberately, and say how one sees it.

    Respected are constant matrices and tables (the zeros that end a residual branch, a diagonal), those far smaller
    than any default, biases of chosen numbers (of a forget gate, of a rare class; zero, beside a matrix that is
    respected), and whatever multiplies or shifts an activation. In networks without normalization, where the start
    decides how training goes, so is what was drawn by another rule of ``nn.init`` than torch's default. Normalizations
    and layer scales follow the rules, but for scales of zero, as do tables of positions and single tokens, which are
    left at zero by custom.

    Nothing is known of values on the meta device or spread over processes, and a model of which every matrix is
    constant was not initialized at all.

    Args:
        model: The target, unwrapped.
        graph: Its trace.
        rules: They say what is small; None is ``ghn.base.default_rules()``.

    Returns:
        Reasons by name.
    """
    specs = [spec for spec in predicted_params(graph) if not _is_of_zoo(model, spec.name)]
    tensors = dict(model.named_parameters())
    samples = {spec.name: _sample(tensors[spec.name]) for spec in specs if _has_values(tensors[spec.name])}
    if not samples:
        return {}
    matrices = [samples[spec.name] for spec in specs if spec.role in MIXING_ROLES and spec.name in samples]
    if len(matrices) > 1 and all(len(values.unique()) == 1 for values in matrices):
        return {}
    traits, rules = ModelTraits(graph), rules or default_rules()
    inits = {spec.name: rules.decide(traits.contexts[spec.name]).init for spec in specs}
    reasons = {}
    for spec in specs:
        reason = spec.name in samples and _choice(
            samples[spec.name], traits.contexts[spec.name], inits[spec.name]
        )
        if reason:
            reasons[spec.name] = f"{reason}; {OVERRIDE}"
    if not traits.norms:
        maps = {spec.name: inits[spec.name].std for spec in specs if spec.role in MIXING_ROLES}
        for name, reason in _own_draws(model, maps.keys() & samples.keys() - reasons.keys(), maps).items():
            reasons[name] = f"{reason}; {OVERRIDE}"
    for spec in specs:
        beside = spec.name.removesuffix("bias") + "weight"
        zero = spec.role == "bias" and spec.name in samples and not samples[spec.name].any()
        if zero and beside != spec.name and beside in reasons:
            reasons[spec.name] = f"its owner set it to zero, with the matrix before it; {OVERRIDE}"
    return reasons


def _own_draws(model: nn.Module, names: Iterable[str], rules: Mapping[str, float]) -> dict[str, str]:
    """Matrices that the owner drew otherwise than torch.

    Somebody who does that does so for most of a network, and there all is his that torch has not drawn.
    """
    matrices = {}
    for name in sorted(names):
        holder, _, entry = name.rpartition(".")
        if entry == "weight" and is_map(model.get_submodule(holder)):
            matrices[name] = DrawnMatrix(model.get_parameter(name))
    large = [name for name, matrix in matrices.items() if matrix.numel >= LEAST_ENTRIES]
    ways = {name: matrices[name].distribution(rules[name]) for name in large}
    if 2 * sum(map(bool, ways.values())) <= len(large):
        return {}
    reasons = {}
    for name, matrix in matrices.items():
        if ways.get(name) or not matrix.is_default:
            how = ways.get(name) or "as the others"
            reasons[name] = f"its owner drew it by another rule than torch's ({how})"
    return reasons


def _choice(values: Tensor, p: ParamContext, init: Init) -> str:
    """What shows that somebody chose the values; empty if nothing does."""
    spec = p.spec
    distinct = values.unique()
    count = len(distinct)
    few = count == 1 or count <= len(values) // FEW
    entries = f"{distinct[0]:g}" if count == 1 else f"one of {count} values"
    if spec.role in MULTIPLIERS:
        rule = math.nan if isinstance(init.mean, Tensor) else init.mean
        at_rule = count == 1 and abs(float(distinct[0]) - rule) < 1e-6
        return "" if at_rule else f"its owner chose its values as {spec.role!r}"
    if spec.role == "layer_scale":
        return "" if values.any() else "its owner closed the branch that it multiplies"
    if spec.role in ("bias", "weight_norm_scale"):
        # A single number says little, unless it is a large one: torch draws biases at random.
        bound = FAR / math.sqrt(p.operation_fan_in) if p.operation_fan_in else FAR
        large = spec.role == "bias" and float(values.abs().max()) > bound
        chosen = few and (len(values) > 1 or large) and bool(values.any())
        return f"its owner set every entry to {entries}" if chosen else ""
    if spec.role in MIXING_ROLES or spec.role == "embedding":
        if few and (len(values) > 1 or not values.any()):
            return f"its owner set every entry to {entries}"
        limit = SMALL_EDGE if spec.role == "embedding" or p.feeds_outputs else SMALL
        if spec.role == "embedding" and init.std == 1:
            limit = SMALL_TABLE
        size = float(values.square().mean().sqrt())
        if len(values) >= FEW and size * limit < init.std:
            return f"its owner made it small (root mean square {size:.1g})"
        if size > LARGE * init.std and spec.behind < 1 / LARGE:
            return f"its owner made it large, and multiplies what it makes by {spec.behind:.2g}"
    return ""


def _has_values(tensor: Tensor) -> bool:
    return not tensor.is_meta and not is_distributed(tensor) and tensor.numel() > 0


def _sample(tensor: Tensor) -> Tensor:
    flat = tensor.detach().reshape(-1)
    places = torch.linspace(0, len(flat) - 1, min(len(flat), SAMPLE), dtype=torch.float64)
    return flat[places.long().to(flat.device)].float().cpu()


def _is_of_zoo(model: nn.Module, name: str) -> bool:
    """Whether a zoo's code made the module that holds a parameter, or the one that holds that, if torch's did."""
    for module in _holders(model, name):
        package = type(module).__module__.partition(".")[0]
        if package != "torch":
            return package in ZOOS
    return False


def _holders(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """The modules around a parameter, the nearest first."""
    parts = name.split(".")[:-1]
    for count in range(len(parts), -1, -1):
        yield model.get_submodule(".".join(parts[:count]))
