"""Rules of one's own, by name; arms that leave some out; a failing one leaves the model as it was."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from ghn.apply.export import export_prediction
from ghn.apply.rules import ablation, own_rules, rule_set
from ghn.arms import ARMS, ArmSettings, arm_of, needs_checkpoint
from ghn.base import Init, ParamContext, Rule, default_rules, registered
from ghn.base.rules.padding_row import PaddingRow
from ghn.errors import ConfigError, ModelError, PredictionError
from ghn.models import load_model

OWN = """
from ghn.base import Init, Rule

class FlatHeads(Rule):
    roles = frozenset({"linear"})

    def applies(self, p):
        return p.feeds_outputs

    def init(self, p):
        return Init(distribution="constant")

class Other(FlatHeads):
    pass

class Fails(Rule):
    def __init__(self):
        raise RuntimeError("not today")

class Plain:
    pass
"""


@pytest.fixture
def own(tmp_path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


@dataclass(frozen=True, kw_only=True)
class Broken(Rule):
    """Right for all but the last parameter."""

    roles: ClassVar[frozenset[str]] = frozenset({"linear"})

    def applies(self, p: ParamContext) -> bool:
        return p.feeds_outputs

    def init(self, p: ParamContext) -> Init:
        return Init(std=float("nan"))


def test_a_modifier_is_found_by_name_as_a_rule_is():
    spec = "ghn.base.rules.padding_row:PaddingRow"
    assert own_rules([spec]) == [PaddingRow()]
    with pytest.raises(ConfigError, match="a rule 'padding_row' already"):
        rule_set([spec])


def test_rules_of_ones_own_come_first_in_the_order_given(own):
    rules = rule_set([f"{own}:Other", f"{own}:FlatHeads"], ["stem_bias"])
    assert rules.names[:2] == ("other", "flat_heads") and "stem_bias" not in rules.names
    assert rule_set() == default_rules()


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("FlatHead", ModelError, "has no 'FlatHead'. Did you mean 'FlatHeads'"),
        ("Fails", ConfigError, r"makes no rule \(RuntimeError: not today\)"),
        ("Plain", ConfigError, "makes Plain; expected a subclass of ghn.base.Rule"),
    ],
)
def test_what_makes_no_rule_is_named(own, name, error, message):
    with pytest.raises(error, match=message):
        own_rules([f"{own}:{name}"])


def test_predictions_follow_the_rules_they_are_given(tiny_ghn, own):
    model = load_model("timm:test_vit")
    report = tiny_ghn.init_(model, learned=False, rules=rule_set([f"{own}:FlatHeads"]))
    assert not model.head.weight.any() and model.blocks[0].mlp.fc1.weight.any()
    assert next(entry for entry in report.parameters if entry.name == "head.weight").rule == "flat_heads"
    assert tiny_ghn.predict(model, learned=False)["head.weight"].any()
    with registered(*own_rules([f"{own}:FlatHeads"])):
        assert not tiny_ghn.predict(model, learned=False)["head.weight"].any()


@pytest.mark.parametrize("keep_deliberate", [True, False])
def test_a_rule_that_fails_leaves_the_model_and_the_disk_as_they_were(tiny_ghn, tmp_path, keep_deliberate):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    before = {name: values.clone() for name, values in model.state_dict().items()}
    options = {"rules": default_rules().adding(Broken()), "keep_deliberate": keep_deliberate}
    with pytest.raises(
        PredictionError, match=r"rule 'broken' says of '2\.weight' of shape \(4, 4\): std nan"
    ):
        tiny_ghn.init_(model, torch.zeros(2, 4), **options)
    for name, values in model.state_dict().items():
        assert torch.equal(values, before[name])
    with pytest.raises(PredictionError, match="'broken'"):
        export_prediction(
            tiny_ghn, model, "python:m:f", tmp_path / "o.safetensors", torch.zeros(2, 4), **options
        )
    assert not list(tmp_path.iterdir())


def test_arms_leave_rules_out(tiny_ghn, tmp_path):
    tiny_ghn.save_pretrained(tmp_path)
    name = ablation("base", ["patch_classifier", "patch_positions"])
    assert name == "base-without-patch_classifier+patch_positions"
    assert needs_checkpoint(name) and not needs_checkpoint("random")
    models = {arm: load_model("timm:test_vit") for arm in ("base", name)}
    for arm, model in models.items():
        arm_of(arm)(model, ArmSettings(checkpoint=str(tmp_path)))
    base, without = (dict(model.state_dict()) for model in models.values())
    assert without["head.weight"].std() == pytest.approx(base["head.weight"].std().item() / 3**0.5, rel=0.05)
    assert without["pos_embed"].std() < base["pos_embed"].std() / 2
    assert torch.equal(base["blocks.0.mlp.fc1.weight"], without["blocks.0.mlp.fc1.weight"])
    assert arm_of("base") is ARMS["base"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bass", "unknown initialization 'bass'.*Did you mean 'base'"),
        ("random-without-fan_in", "unknown initialization 'random'; expected some of ghn, base"),
        ("base-without-stembias", r"no rule 'stembias'\. Did you mean 'stem_bias'"),
    ],
)
def test_unknown_arms_are_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        arm_of(name)
