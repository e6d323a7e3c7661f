"""Every parameter name is in the report exactly once, with its fate."""

import json

import pytest
import torch
from torch import nn

from ghn.models import load_model

TINY_GPT2 = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 32}


@pytest.mark.parametrize(
    ("spec", "kwargs"), [("timm:test_resnet", {}), ("timm:test_vit", {}), ("hf:gpt2", TINY_GPT2)]
)
def test_every_name_exactly_once(tiny_ghn, spec, kwargs):
    model = load_model(spec, **kwargs)
    report = tiny_ghn.init_(model)
    names = [entry.name for entry in report.parameters]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters(remove_duplicate=False))
    shapes = dict(model.named_parameters(remove_duplicate=False))
    assert all(entry.shape == shapes[entry.name].shape for entry in report.parameters)
    assert report.count("kept") == 0


class Partly(nn.Module):
    """One layer used, one tied to it, one never."""

    def __init__(self):
        super().__init__()
        self.used, self.tied, self.unused = (nn.Linear(8, 8, bias=False) for _ in range(3))
        self.tied.weight = self.used.weight

    def forward(self, x):
        return self.tied(self.used(x))


def test_fates_and_their_reasons(tiny_ghn):
    model = Partly()
    kept = model.unused.weight.clone()
    report = tiny_ghn.init_(model, torch.ones(2, 8))
    assert [(entry.name, entry.fate) for entry in report.parameters] == [
        ("used.weight", "predicted"),
        ("tied.weight", "tied"),
        ("unused.weight", "kept"),
    ]
    predicted, tied, unused = report.parameters
    assert predicted.reason == ""
    assert "'used.weight'" in tied.reason
    assert "no executed operation" in unused.reason
    assert torch.equal(model.unused.weight, kept)
    text = str(report)
    assert text.startswith("1 predicted, 1 tied, 1 kept")
    assert "kept unused.weight (8, 8)" in text


def test_every_parameter_has_its_rule(tiny_ghn):
    report = tiny_ghn.init_(load_model("timm:test_vit"), learned=False)
    entries = {entry.name: entry for entry in report.parameters}
    head, end = entries["head.weight"], entries["blocks.0.norm1.bias"]
    assert (head.rule, head.modifiers, head.mean, head.std) == ("patch_classifier", (), 0.0, 0.125)
    assert (end.rule, end.mean, end.std) == ("zero_shift", 0.0, 0.0)
    groups = report.by_rule()
    assert sum(map(len, groups.values())) == report.count("predicted")
    assert next(iter(groups)) == "fan_in"
    assert "\n  rule patch_classifier: 1 tensor, 64,000 numbers" in str(report)


def test_reports_explain_themselves_as_a_table_and_as_json(tiny_ghn):
    report = tiny_ghn.init_(Partly(), torch.ones(2, 8))
    lines = [line.split() for line in report.explain().splitlines()]
    assert lines[0] == ["parameter", "shape", "rule", "mean", "std"]
    assert lines[1][:3] == ["used.weight", "8×8", "classifier"] and float(lines[1][-1]) > 0
    assert lines[2:] == [["tied.weight", "8×8", "tied"], ["unused.weight", "8×8", "kept"]]
    stored = json.loads(json.dumps(report.to_dict()))
    assert [entry["rule"] for entry in stored["parameters"]] == ["classifier", "", ""]


class Odd(nn.Module):
    """Integers, complex numbers and an empty tensor beside a usual layer."""

    def __init__(self):
        super().__init__()
        self.layer, self.empty = nn.Linear(8, 8), nn.Parameter(torch.ones(0, 8))
        self.steps = nn.Parameter(torch.arange(1, 9), requires_grad=False)
        self.waves = nn.Parameter(torch.ones(8, dtype=torch.cfloat))

    def forward(self, x):
        x = torch.cat([self.layer(x) * self.steps, self.empty])
        return (x * self.waves).real


def test_what_no_rule_covers_is_kept(tiny_ghn):
    model = Odd()
    report = tiny_ghn.init_(model, torch.ones(2, 8))
    fates = {entry.name: entry.fate for entry in report.parameters}
    assert [name for name, fate in fates.items() if fate == "kept"] == ["empty", "steps", "waves"]
    assert model.steps.tolist() == list(range(1, 9))
    assert all(entry.reason for entry in report.parameters if entry.fate == "kept")
