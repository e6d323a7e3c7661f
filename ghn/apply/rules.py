"""Rules by name: a user's own from the command line, and arms of a comparison that leave some out."""

from collections.abc import Iterable, Sequence

from ghn.base import Modifier, Rule, RuleSet, default_rules
from ghn.errors import ConfigError, GhnError, one_line
from ghn.models.python_zoo import find

WITHOUT = "-without-"
"""Separates the name of an arm from the rules that it leaves out, which ``+`` joins."""


def own_rules(specs: Iterable[str]) -> list[Rule | Modifier]:
    """Rules and modifiers that ``package.module:Name`` or ``FILE.py:Name`` names: subclasses, or what returns one.

    Raises:
        ModelError: If there is no such module, file or name.
        ConfigError: If it makes no rule.
    """
    return [_own_rule(spec) for spec in specs]


def rule_set(own: Sequence[str] = (), without: Sequence[str] = ()) -> RuleSet:
    """The default rules without some, and with a user's own, of which the first has the last word.

    Raises:
        ModelError, ConfigError: As ``own_rules``, or if there is no rule of a name to leave out.
    """
    rules = default_rules()
    for rule in reversed(own_rules(own)):
        rules = rules.adding(rule)
    return rules.without(*without)


def ablation(arm: str, without: Sequence[str]) -> str:
    """Name of the arm that leaves rules out."""
    return f"{arm}{WITHOUT}{'+'.join(without)}"


def split_arm(name: str) -> tuple[str, tuple[str, ...]]:
    """The arm that a name begins with, and the rules that it leaves out."""
    arm, sign, without = name.partition(WITHOUT)
    return arm, tuple(without.split("+")) if sign else ()


def _own_rule(spec: str) -> Rule | Modifier:
    try:
        rule = find(spec)()
    except GhnError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise ConfigError(
            f"{spec!r} makes no rule ({type(error).__name__}: {one_line(error)}); expected a subclass of ghn.base.Rule"
        ) from error
    if not isinstance(rule, Rule | Modifier):
        raise ConfigError(f"{spec!r} makes {type(rule).__name__}; expected a subclass of ghn.base.Rule")
    return rule
