"""Targets from workers are those of one process."""

from dataclasses import replace

import pytest
import torch

from ghn.base.predicted import predicted_params
from ghn.errors import OutputError
from ghn.graph.trace import trace
from ghn.hypernetwork import GHNConfig
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.targets import Targets
from ghn.metatrain.tasks import load_tasks
from ghn.metatrain.workers import stream

CONFIG = MetaTrainConfig(targets_per_step=4, bases=2, networks=2, text_tokens=10_000, ghn=GHNConfig())


@pytest.fixture(scope="module")
def tasks():
    return load_tasks(CONFIG, torch.device("cpu"))


def test_workers_draw_the_same_networks_and_leave_out_what_a_prediction_replaces(tasks, tmp_path):
    config = replace(CONFIG, networks=1000)
    places = [(step, number) for step in range(6) for number in (0, 2)]
    drawn = list(stream(Targets(config, tasks, tmp_path / "one"), places))
    sent = list(stream(Targets(config, tasks, tmp_path / "two"), places, workers=2))
    assert {target.task for target in drawn} == {"images", "text"}
    for one, two in zip(drawn, sent, strict=True):
        assert (one.task, one.graph, one.seed) == (two.task, two.graph, two.seed)
        assert one.rng.getstate() == two.rng.getstate()
        predicted = {spec.name for spec in predicted_params(one.graph)}
        for (name, value), (other, stand_in) in zip(
            one.model.named_parameters(remove_duplicate=False),
            two.model.named_parameters(remove_duplicate=False),
            strict=True,
        ):
            assert name == other and value.shape == stand_in.shape
            if name in predicted:
                assert stand_in.untyped_storage().nbytes() == 4
            elif name in dict(one.model.named_parameters()):  # else it is tied
                assert torch.equal(value, stand_in)
        assert one.remembered.draws.keys() == two.remembered.draws.keys() != set()
        for key, numbers in one.remembered.draws.items():
            others = two.remembered.draws[key]
            assert (numbers.block, numbers.band) == (others.block, others.band)
            assert torch.equal(numbers.left, others.left)
            assert (numbers.right is None) == (others.right is None)
            assert numbers.right is None or torch.equal(numbers.right, others.right)
        tied = [sum(1 for _ in target.model.parameters()) for target in (one, two)]
        assert tied[0] == tied[1]
        buffers = dict(two.model.named_buffers())
        for name, value in one.model.named_buffers():
            assert torch.equal(value, buffers[name]), name
        example = Targets(config, tasks)._examples[two.task]
        assert trace(two.model, example) == one.graph  # if its file is lost on the way


def test_mistakes_of_workers_come_as_they_are(tasks, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"^\S+file can't be made \(File exists\)"):
        next(stream(Targets(CONFIG, tasks, tmp_path / "file"), [(0, 0)], workers=1))
