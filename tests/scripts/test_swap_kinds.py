"""Parameters of one role come from the second initialization, all others from the first."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ghn.arms import ARMS, ArmSettings
from ghn.errors import ConfigError
from ghn.models import load_model
from ghn.tracing.trace import trace


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> Iterator[ModuleType]:
    known = dict(ARMS)
    yield load_script("swap_kinds")
    for name in ARMS.keys() - known:
        del ARMS[name]


def test_one_role_is_swapped(script: ModuleType) -> None:
    torch.manual_seed(0)
    random = load_model("timm:test_vit", num_classes=10)
    orthogonal, mixed = (
        load_model("timm:test_vit", num_classes=10),
        load_model("timm:test_vit", num_classes=10),
    )
    for model in (orthogonal, mixed):
        model.load_state_dict(random.state_dict())
    ARMS["orthogonal"](orthogonal, ArmSettings())
    note = script.swap_role("orthogonal", "random", "linear")(mixed, ArmSettings())
    roles = {spec.name: spec.role for spec in trace(mixed).params}
    assert note.startswith(f"{list(roles.values()).count('linear')} parameters")
    for name, value in mixed.named_parameters():
        source = random if roles[name] == "linear" else orthogonal
        assert torch.equal(value, source.get_parameter(name)), name
    assert not torch.equal(
        mixed.get_parameter("patch_embed.proj.weight"), random.get_parameter("patch_embed.proj.weight")
    )


def test_every_role_is_compared(script: ModuleType, tmp_path: Path) -> None:
    options = {
        "model": "timm:test_resnet",
        "dataset": "digits",
        "image_size": 16,
        "steps": 2,
        "batch_size": 4,
    }
    script.swap(
        "orthogonal", "random", **options, seeds=[0], lr=[1e-3], roles=["conv"], output_dir=str(tmp_path)
    )
    runs = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert [run["init"] for run in runs] == ["orthogonal", "random", "orthogonal, conv of random"]
    assert len({run["curve"][-1]["loss"] for run in runs}) == 3
    with pytest.raises(ConfigError, match="Did you mean 'conv'"):
        script.swap("orthogonal", "random", **options, roles=["convs"])
