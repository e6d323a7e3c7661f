"""Objectives, spaces and tasks of the user's own, by name; and what is said where they fail."""

import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from ghn.errors import GhnError
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.run import metatrain

OWN = """
    import random

    import torch

    from ghn.metatrain.objectives import Objective, Step0
    from ghn.spaces import Architecture
    from ghn.tasks import Task


    class Doubled(Step0):
        def __init__(self, factor=2.0):
            self.factor = factor

        def gradient(self, trial):
            loss, grads = super().gradient(trial)
            return self.factor * loss, {name: self.factor * grad for name, grad in grads.items()}


    class Broken(Objective):
        def gradient(self, trial):
            return 1 / 0


    class Widths:
        def sample(self, rng):
            widths = [rng.choice((4, 8)) * 2**stage for stage in range(4)]
            kwargs = {"layers": [1, 1, 1, 1], "channels": widths}
            return Architecture(spec="timm:resnet18", kwargs=kwargs, family="mine", depth=4, width=widths[-1])


    def rows(num_classes):
        return torch.nn.Linear(3, num_classes)


    class Rows:
        def sample(self, rng):
            return Architecture(spec="python:own.py:rows", kwargs={}, family="mine", depth=1, width=1)


    class Nonsense:
        def sample(self, rng):
            return rng.random()


    class Stripes(Task):
        name, kind, arguments = "stripes", "images", {"num_classes": 2}

        class Split:
            in_memory = True

            def __len__(self):
                return 64

            def __getitems__(self, rows):
                labels = torch.tensor(rows) % 2
                lines = (torch.arange(16) // 2 % 2).float().expand(len(rows), 3, 16, 16)
                return torch.where(labels[:, None, None, None] == 1, lines, lines.mT), labels

        train = evaluation = Split()

        def inputs(self, batch, device, augment=None):
            return (batch[0],), batch[1]


    class NothingHeldOut(Stripes):
        evaluation = []
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of the user's, in the folder where the command is run."""
    (tmp_path / "own.py").write_text(textwrap.dedent(OWN))
    monkeypatch.chdir(tmp_path)
    return "own.py"


Settings = Callable[..., MetaTrainConfig]
Rows = Callable[[Path], list[dict[str, Any]]]


def test_an_objective_of_ones_own(own: str, tiny: Settings, rows: Rows, tmp_path: Path) -> None:
    metatrain(tiny(updates=1), tmp_path / "step0")
    settings = {"objective": f"{own}:Doubled", "objective_settings": {"factor": 3}}
    metatrain(tiny(updates=1, **settings), tmp_path / "own")
    ours, own_rows = rows(tmp_path / "step0")[0], rows(tmp_path / "own")[0]
    assert own_rows["norm"] == pytest.approx(3 * ours["norm"], rel=1e-4)
    assert own_rows["loss"].keys() == ours["loss"].keys()


def test_a_space_of_ones_own(own: str, tiny: Settings, rows: Rows, tmp_path: Path) -> None:
    net = metatrain(tiny(space=f"{own}:Widths", updates=2), tmp_path / "run")
    assert net.decoder.bank.families == ["mine"]
    assert list(rows(tmp_path / "run")[-1]["validation"]) == ["mine"]


def test_a_task_of_ones_own(own: str, tiny: Settings, rows: Rows, tmp_path: Path) -> None:
    settings = {"images": "", "task": f"{own}:Stripes", "space": f"{own}:Widths", "rank": 0}
    metatrain(tiny(updates=40, validate_every=40, image_lr=0.02, **settings), tmp_path / "run")
    log = rows(tmp_path / "run")
    assert log[-1]["validation"].keys() == {"mine"}
    losses = [loss for row in log for loss in row.get("loss", {}).get("mine", ())]
    assert fmean(losses[-20:]) < 0.75 * math.log(2)  # a guess of two classes has log 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "step1"}, r"unknown objective 'step1'; expected step0 or after_k .* 'step0'"),
        ({"objective": "own.py:Missing"}, r"objective 'own.py:Missing': 'own.py' has no 'Missing'"),
        ({"objective": "nowhere.py:Missing"}, r"There is no file 'nowhere.py'"),
        ({"objective": "own.py:Widths"}, r"makes Widths; expected ghn.metatrain.objectives.\w+.Objective"),
        ({"objective": "own.py:Broken"}, r"'own.py:Broken' failed at .*own.py:\d+: ZeroDivisionError"),
        ({"objective_settings": {"steps": 1}}, r"'step0' failed at .*: TypeError"),
        ({"objective": "after_k", "objective_settings": {"steps": 0}}, r"after_k has steps=0"),
        ({"space": "own.py:Nonsense"}, r"'own.py:Nonsense' sampled float; expected ghn.spaces.Architecture"),
        (
            {"space": "own.py:Rows"},
            r"a network of 'own.py:Rows' \(python:own.py:rows .*\) doesn't go with the task 'image-classification'",
        ),
        ({"space": "own.py:Doubled"}, r"makes Doubled; expected ghn.spaces.\w+.TargetSpace"),
        ({"task": "own.py:NothingHeldOut", "images": ""}, r"has 0 examples to validate on; expected 2"),
        ({"space": "", "left_out": ["resnets"]}, r"left_out has no family 'resnets'.* Did you mean 'resnet'"),
    ],
)
def test_what_fails_is_named_in_one_line(
    own: str, tiny: Settings, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(GhnError, match=message) as raised:
        metatrain(tiny(**settings), tmp_path / "run")
    assert "\n" not in str(raised.value)
