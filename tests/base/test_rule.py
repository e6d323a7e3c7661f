"""Rules in order: who decides, what one may add and leave out, and what is said of one that fails."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from ghn.base import (
    Init,
    Modifier,
    ParamContext,
    Rule,
    RuleSet,
    decisions,
    default_rules,
    register,
    registered,
    unregister,
)
from ghn.errors import ConfigError, PredictionError
from ghn.tracing.trace import trace

MODEL = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


@pytest.fixture(scope="module")
def graph():
    return trace(MODEL, torch.zeros(2, 4))


@dataclass(frozen=True, kw_only=True)
class WideMaps(Rule):
    """A rule of one's own."""

    roles: ClassVar[frozenset[str]] = frozenset({"linear"})
    std: float = 7.0

    def applies(self, p: ParamContext) -> bool:
        return p.fan_out > 4

    def init(self, p: ParamContext) -> Init:
        return Init(std=self.std, distribution="normal")


def test_names_are_those_of_their_files():
    rules = default_rules()
    for entry in (*rules.rules, *rules.modifiers):
        assert type(entry).__module__ == f"ghn.base.rules.{entry.name}"


def test_every_rule_says_what_it_does_and_knows_its_roles():
    rules = default_rules()
    names = {rule.name for rule in rules.rules} | {"fan_out"}
    for entry in (*rules.rules, *rules.modifiers):
        assert type(entry).__doc__ and not type(entry).__doc__.startswith(type(entry).__name__ + "(")
    for modifier in rules.modifiers:
        assert modifier.rules is None or modifier.rules <= names


def test_the_first_rule_that_applies_decides(graph):
    made = decisions(graph, default_rules().adding(WideMaps()))
    assert (made["0.weight"].rule, made["2.weight"].rule) == ("wide_maps", "classifier")
    assert made["0.weight"].init.std == 7
    late = decisions(graph, default_rules().adding(WideMaps(), before="fan_in"))
    assert late["0.weight"].rule == "unnormalized_chain"


def test_what_is_left_out_decides_nothing(graph):
    made = decisions(graph, default_rules().without("unnormalized_chain", "unnormalized_bias"))
    assert (made["0.weight"].rule, made["0.bias"].rule) == ("fan_in", "zero_shift")


@dataclass(frozen=True, kw_only=True)
class Halved(Modifier):
    """A modifier of one's own."""

    def applies(self, p: ParamContext, init: Init) -> bool:
        return init.random

    def modify(self, p: ParamContext, init: Init) -> Init:
        return replace(init, std=init.std / 2)


def test_a_modifier_that_is_added_changes_what_all_others_have_said(graph):
    before, after = decisions(graph), decisions(graph, default_rules().adding(Halved()))
    for name, decision in after.items():
        assert decision.rule == before[name].rule
        halved = decision.init.random
        assert decision.modifiers == (*before[name].modifiers, *(["halved"] if halved else []))
        assert decision.init.std == before[name].init.std / (2 if halved else 1)
    early = default_rules().adding(Halved(), before="sum_pooling")
    assert early.names.index("halved") == early.names.index("sum_pooling") - 1
    with pytest.raises(ConfigError, match=r"no rule 'fan_in' to come before"):
        default_rules().adding(Halved(), before="fan_in")
    with registered(WideMaps(), Halved()):
        assert decisions(graph)["0.weight"].init.std == 3.5
    assert "halved" not in default_rules().names


def test_registered_rules_are_everyones_until_they_are_taken_out(graph):
    register(WideMaps(), before="classifier")
    try:
        assert "wide_maps" in default_rules().names
        assert decisions(graph)["0.weight"].rule == "unnormalized_chain"
    finally:
        unregister("wide_maps")
    assert "wide_maps" not in default_rules().names


def test_unknown_names_are_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"no rule 'batchnorm_bias'\. Did you mean 'batch_norm_bias'"):
        default_rules().without("batchnorm_bias")
    with pytest.raises(ConfigError, match=r"no rule 'fanin' to come before\. Did you mean 'fan_in'"):
        default_rules().adding(WideMaps(), before="fanin")


@pytest.mark.parametrize(
    ("rule", "message"), [(WideMaps, "the class WideMaps is no rule"), (7, "7 is no rule")]
)
def test_what_is_no_rule_is_refused(rule, message):
    with pytest.raises(ConfigError, match=message):
        default_rules().adding(rule)


def test_a_name_is_taken_once():
    with pytest.raises(ConfigError, match="a rule 'wide_maps' already"):
        default_rules().adding(WideMaps()).adding(WideMaps(std=1.0))


def test_the_last_rule_of_a_role_is_needed(graph):
    with pytest.raises(PredictionError, match=r"no rule is left for '2\.weight' of role 'linear'"):
        decisions(graph, default_rules().without("classifier", "fan_in"))


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (lambda p: 1 / 0, r"rule 'broken' failed for '0.weight' of shape \(8, 4\) \(ZeroDivisionError"),
        (lambda p: None, "None, expected a ghn.base.Init"),
        (lambda p: Init(std=-1.0), "std -1.0, expected a finite number of at least 0"),
        (lambda p: Init(std=math.nan), "std nan"),
        (lambda p: Init(std=1.0, distribution="cauchy"), "distribution 'cauchy', expected one of"),
        (lambda p: Init(mean=1.0, std=1.0), "mean 1.0 of random values"),
        (lambda p: Init(mean=math.inf, distribution="constant"), "mean inf, expected finite numbers"),
        (
            lambda p: Init(mean=torch.zeros(3), distribution="constant"),
            r"shape \(3,\).* broadcast to \(8, 4\)",
        ),
        (lambda p: Init(mean="0", distribution="constant"), "mean '0', expected finite numbers"),
    ],
)
def test_nonsense_is_one_line_that_names_rule_and_parameter(graph, init, message):
    class Broken(Rule):
        def applies(self, p: ParamContext) -> bool:
            return p.spec.name == "0.weight"

        def init(self, p: ParamContext) -> Init:
            return init(p)

    with pytest.raises(PredictionError, match=message) as caught:
        decisions(graph, default_rules().adding(Broken()))
    text = str(caught.value)
    assert "'broken'" in text and "'0.weight'" in text and "\n" not in text


def test_modifiers_that_fail_are_named(graph):
    class Broken(Modifier):
        def applies(self, p: ParamContext, init: Init) -> bool:
            raise RuntimeError("no luck\ntoday")

    rules = RuleSet(default_rules().rules, (Broken(),))
    with pytest.raises(PredictionError, match=r"'broken' failed for '0\.weight'.*no luck today"):
        decisions(graph, rules)


def test_constants_of_any_shape_reach_the_prediction(tiny_ghn, graph):
    class Diagonal(Rule):
        roles: ClassVar[frozenset[str]] = frozenset({"linear"})

        def init(self, p: ParamContext) -> Init:
            return Init(mean=torch.eye(*p.spec.shape), distribution="constant")

    rules = default_rules().adding(Diagonal())
    made = tiny_ghn.predict_graph(graph, learned=False, rules=rules).params
    assert torch.equal(made["0.weight"], torch.eye(8, 4)) and torch.equal(made["2.weight"], torch.eye(2, 8))
