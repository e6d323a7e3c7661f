"""The start that needs no training: an initialization rule for every parameter, and the numbers drawn by it.

A user's own rule is a subclass of ``Rule``, for one prediction (``net.init_(model, rules=default_rules().adding(…))``)
or for all (``register``).
"""

from ghn.base.context import ModelTraits, ParamContext, contexts
from ghn.base.init import Init
from ghn.base.rule import Decision, Modifier, Rule, RuleSet
from ghn.base.schemes import decisions, default_rules, in_scheme, register, registered, unregister

__all__ = [
    "Decision",
    "Init",
    "ModelTraits",
    "Modifier",
    "ParamContext",
    "Rule",
    "RuleSet",
    "contexts",
    "decisions",
    "default_rules",
    "in_scheme",
    "register",
    "registered",
    "unregister",
]
