"""The rules that predictions follow unless told otherwise, and a user's own among them."""

from collections.abc import Iterator
from contextlib import contextmanager

from ghn.base.context import ModelTraits
from ghn.base.predicted import predicted_params
from ghn.base.rule import Decision, Modifier, Rule, RuleSet
from ghn.base.rules import MODIFIERS, RULES, FanOut
from ghn.errors import ConfigError
from ghn.graph.graph import ComputationGraph
from ghn.settings import own_settings

SCHEMES = ("fan_in", "fan_out", "adaptive")
"""Schemes for matrices and kernels: all by their fan-in, all by their fan-out, or each by what the graph says of it."""

_ADAPTIVE = (
    *("conv_batch_norm", "recurrent_state", "unnormalized_chain", "relu_maps"),
    *("patch_classifier", "classifier", "mlp_mixer"),
    *("word_attention", "previous_token_output", "set_output", "wide_classifier"),
)
"""Rules that the schemes of one fan leave out."""

_default = RuleSet(RULES, MODIFIERS)


def default_rules() -> RuleSet:
    """The library's rules, and those that were registered."""
    return _default


def register(entry: Rule | Modifier, before: str | None = None) -> None:
    """Make every later prediction of this process follow a rule or modifier of one's own, too.

    Args:
        entry: An instance of a subclass of ``Rule`` or ``Modifier``.
        before: As in ``RuleSet.adding``: None gives it the last word.

    Raises:
        ConfigError: As ``RuleSet.adding``.
    """
    global _default
    _default = _default.adding(entry, before)


def unregister(name: str) -> None:
    """Leave out a rule or modifier in every later prediction of this process.

    Raises:
        ConfigError: If there is none of this name; suggests another.
    """
    global _default
    _default = _default.without(name)


@contextmanager
def registered(*entries: Rule | Modifier) -> Iterator[None]:
    """Follow rules and modifiers of one's own, too, within a ``with`` block; the first has the last word.

    Raises:
        ConfigError: As ``register``.
    """
    global _default
    before = _default
    try:
        for entry in reversed(entries):
            register(entry)
        yield
    finally:
        _default = before


def in_scheme(rules: RuleSet, scheme: str) -> RuleSet:
    """A rule set as one of ``SCHEMES`` has it.

    Raises:
        ConfigError: If ``scheme`` is none of them.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"scheme must be one of {', '.join(SCHEMES)}; got {scheme!r}")
    if scheme == "adaptive":
        return rules
    one = rules.without(*(name for name in _ADAPTIVE if name in rules.names))
    if scheme == "fan_out" and "fan_in" in one.names:
        one = one.adding(FanOut(), before="fan_in").without("fan_in")
    return one


@own_settings()
def decisions(
    graph: ComputationGraph, rules: RuleSet | None = None, scheme: str = "adaptive"
) -> dict[str, Decision]:
    """How every parameter of a graph that is predicted starts, and which rule says so, by name.

    Args:
        graph: From ``ghn.trace``.
        rules: None is ``default_rules()``.
        scheme: One of ``SCHEMES``.

    Raises:
        PredictionError: If no rule applies to a parameter, or one fails or says what can't be.
        ConfigError: If ``scheme`` is none of them.
    """
    contexts, rules = ModelTraits(graph).contexts, in_scheme(rules or default_rules(), scheme)
    return {spec.name: rules.decide(contexts[spec.name]) for spec in predicted_params(graph)}
