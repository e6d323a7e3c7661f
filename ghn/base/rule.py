"""Rules of initialization, the modifiers of what they say, and ordered sets of both."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, ClassVar

from ghn.base.context import ParamContext
from ghn.base.init import Init
from ghn.errors import ConfigError, PredictionError, did_you_mean, one_line
from ghn.graph.ops import ROLES


class _Named:
    @property
    def name(self) -> str:
        """How reports and ``RuleSet.without`` call it: its class in snake case."""
        return _snake_case(type(self).__name__)


@cache
def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@dataclass(frozen=True, kw_only=True)
class Rule(_Named):
    """How parameters of one kind start; constants are fields.

    The first rule of a ``RuleSet`` that applies to a parameter says its ``Init``.
    """

    roles: ClassVar[frozenset[str]] = frozenset(ROLES)
    """Roles of the parameters that it is asked about; see ``ghn.graph.ops.ROLES``."""

    def applies(self, p: ParamContext) -> bool:
        """Whether it is for a parameter, which has one of its roles."""
        return True

    def init(self, p: ParamContext) -> Init:
        """How the parameter starts."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Modifier(_Named):
    """What changes the ``Init`` that some rules say; constants are fields."""

    rules: ClassVar[frozenset[str] | None] = None
    """Names of the rules whose parameters it is asked about; None for all, a user's own too."""

    def applies(self, p: ParamContext, init: Init) -> bool:
        """Whether it changes how a parameter starts, which is ``init`` so far."""
        raise NotImplementedError

    def modify(self, p: ParamContext, init: Init) -> Init:
        """How the parameter starts instead."""
        raise NotImplementedError


@dataclass(frozen=True)
class Decision:
    """How one parameter starts, and who says so."""

    init: Init
    rule: str
    modifiers: tuple[str, ...] = ()
    """Names of those that changed it, in order."""


@dataclass(frozen=True)
class RuleSet:
    """Rules and modifiers, both in order."""

    rules: tuple[Rule, ...]
    modifiers: tuple[Modifier, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all rules and modifiers."""
        return tuple(entry.name for entry in (*self.rules, *self.modifiers))

    def without(self, *names: str) -> "RuleSet":
        """The set without some rules and modifiers.

        Raises:
            ConfigError: If there is none of a name; suggests another.
        """
        for name in names:
            if name not in self.names:
                raise ConfigError(f"there is no rule {name!r}.{did_you_mean(name, self.names)}")
        return RuleSet(
            tuple(rule for rule in self.rules if rule.name not in names),
            tuple(modifier for modifier in self.modifiers if modifier.name not in names),
        )

    def adding(self, entry: Rule | Modifier, before: str | None = None) -> "RuleSet":
        """The set with one more rule or modifier.

        Args:
            entry: An instance of a subclass of ``Rule`` or ``Modifier``.
            before: Name of the one of its kind that it comes before. None gives it the last word: a rule comes before
                all others, so that it wins wherever it applies, a modifier after all others.

        Raises:
            ConfigError: If it is neither, its name is taken, or there is none of its kind to put it before.
        """
        if not isinstance(entry, Rule | Modifier):
            what = f"the class {entry.__name__}" if isinstance(entry, type) else repr(entry)
            raise ConfigError(
                f"{what} is no rule; pass an instance of a subclass of ghn.base.Rule or ghn.base.Modifier"
            )
        if entry.name in self.names:
            raise ConfigError(
                f"there is a rule {entry.name!r} already; give the class another name, or drop the other one first"
            )
        if isinstance(entry, Rule):
            return replace(self, rules=_insert(entry, self.rules, before, last=False))
        return replace(self, modifiers=_insert(entry, self.modifiers, before, last=True))

    def decide(self, p: ParamContext) -> Decision:
        """How a parameter starts.

        Raises:
            PredictionError: If no rule applies, or one fails or says what can't be.
        """
        candidates = self._by_role.get(p.spec.role, [])
        pair = next((pair for pair in candidates if _ask(pair[0], pair[0].applies, p)), None)
        if pair is None:
            raise PredictionError(
                f"no rule is left for {p.spec.name!r} of role {p.spec.role!r}; keep the last one of its role"
            )
        rule, modifiers = pair
        init = _check(rule, p, _ask(rule, rule.init, p))
        names = []
        for modifier in modifiers:
            if _ask(modifier, modifier.applies, p, init):
                init = _check(modifier, p, _ask(modifier, modifier.modify, p, init))
                names.append(modifier.name)
        return Decision(init, rule.name, tuple(names))

    @cached_property
    def _by_role(self) -> dict[str, list[tuple[Rule, list[Modifier]]]]:
        """Rules of each role, each with the modifiers of what it says."""
        own = [
            (rule, [entry for entry in self.modifiers if entry.rules is None or rule.name in entry.rules])
            for rule in self.rules
        ]
        return {role: [pair for pair in own if role in pair[0].roles] for role in ROLES}


def _insert(entry: Any, entries: tuple[Any, ...], before: str | None, last: bool) -> tuple[Any, ...]:
    names = [other.name for other in entries]
    if before is not None and before not in names:
        raise ConfigError(f"there is no rule {before!r} to come before.{did_you_mean(before, names)}")
    place = names.index(before) if before is not None else len(names) if last else 0
    return (*entries[:place], entry, *entries[place:])


def _ask(entry: Rule | Modifier, method: Callable[..., Any], p: ParamContext, *more: Init) -> Any:
    try:
        return method(p, *more)
    except Exception as error:  # whatever a user's own rule raises
        raise PredictionError(
            f"rule {entry.name!r} failed for {p.spec.name!r} of shape {p.spec.shape} ({type(error).__name__}: "
            f"{one_line(error)}); mend it, or drop it"
        ) from error


def _check(entry: Rule | Modifier, p: ParamContext, init: Any) -> Init:
    problem = init.problem(p.spec) if isinstance(init, Init) else f"{init!r}, expected a ghn.base.Init"
    if problem:
        raise PredictionError(
            f"rule {entry.name!r} says of {p.spec.name!r} of shape {p.spec.shape}: {problem}; mend it, or drop it"
        )
    return init
