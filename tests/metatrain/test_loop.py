"""Meta-training: exact resume, a hypernetwork that all learns, and refusals."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ghn.encoder import EncoderConfig
from ghn.errors import CheckpointError, ConfigError, DataError
from ghn.hypernetwork import GHN, GHNConfig
from ghn.metatrain import MetaTrainConfig, metatrain
from ghn.metatrain.loop import LOG
from ghn.metatrain.objective import regression_loss
from ghn.metatrain.state import STATE

TINY = MetaTrainConfig(
    text="",
    steps=3,
    targets_per_step=1,
    warmup_steps=1,
    inner_steps=(1, 2),
    inner_batch_size=4,
    save_every=1,
    ghn=GHNConfig(encoder=EncoderConfig(hidden=16, layers=1, heads=2)),
)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / LOG).read_text().splitlines()]


def test_interrupted_run_resumes_to_the_last_bit(tmp_path: Path) -> None:
    whole = metatrain(TINY, tmp_path / "whole")
    for _ in range(TINY.steps):  # every call does one update and stops
        parts = metatrain(TINY, tmp_path / "parts", max_seconds=0)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert len(losses(tmp_path / "whole")) == TINY.steps
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


def test_rows_after_the_saved_state_are_done_again(tmp_path: Path) -> None:
    metatrain(TINY, tmp_path, max_seconds=0)
    expected = losses(tmp_path)
    with (tmp_path / LOG).open("a") as log:  # as if killed between writing the log and the state
        log.write(json.dumps({"step": 1, "loss": math.inf}) + "\n")
    metatrain(TINY, tmp_path)
    assert losses(tmp_path)[:1] == expected
    assert len(losses(tmp_path)) == TINY.steps
    assert all(math.isfinite(loss) for loss in losses(tmp_path))


def test_checkpoint_loads_and_has_moved(tmp_path: Path) -> None:
    average = metatrain(TINY, tmp_path)
    loaded = GHN.from_pretrained(tmp_path / "checkpoint")
    assert loaded.config == TINY.ghn
    torch.manual_seed(TINY.seed)
    start = GHN(TINY.ghn)
    for name, value in average.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
        assert value.numel() == 1 or not torch.equal(value, start.state_dict()[name]), name


def test_other_settings_and_damaged_states_are_refused(tmp_path: Path) -> None:
    metatrain(TINY, tmp_path, max_seconds=0)
    with pytest.raises(ConfigError, match=r"other settings \(lr\)"):
        metatrain(replace(TINY, lr=0.1), tmp_path)
    (tmp_path / STATE).write_bytes((tmp_path / STATE).read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        metatrain(TINY, tmp_path)


def test_data_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds text"):
        metatrain(replace(TINY, images="python-stdlib"), tmp_path)
    with pytest.raises(ConfigError, match="nothing to learn from"):
        replace(TINY, images="", text="")


def test_regression_gradient_points_where_training_went() -> None:
    predicted = {"weight": torch.randn(4, 3, requires_grad=True)}
    displacement = torch.randn(4, 3)
    regression_loss(predicted, {"weight": predicted["weight"].detach() + displacement}).backward()
    direction = -predicted["weight"].grad
    assert torch.allclose(direction / direction.norm(), displacement / displacement.norm(), atol=1e-6)
