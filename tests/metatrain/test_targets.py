"""Targets are functions of seed, update and number; each network is traced once."""

import pytest
import torch

from ghn.metatrain import targets as module
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.targets import Targets
from ghn.metatrain.tasks import load_tasks

CPU = torch.device("cpu")
CONFIG = MetaTrainConfig(targets_per_step=4, bases=2, networks=2, text_tokens=10_000)


@pytest.fixture(scope="module")
def tasks():
    return load_tasks(CONFIG, CPU)


def test_draws_are_the_same_in_every_run_and_cover_every_kind_of_data(tasks):
    first, second = Targets(CONFIG, tasks), Targets(CONFIG, tasks)
    seen = set()
    for step in range(2):
        for number in range(4):
            one, two = first.draw(step, number), second.draw(step, number)
            assert (one.task, one.seed, one.rng.getstate()) == (two.task, two.seed, two.rng.getstate())
            for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
                assert torch.equal(a, b)
            seen.add(one.task)
    assert seen == {"images", "text"}


def test_bases_share_the_architecture_and_nothing_else(tasks):
    one, two, other = (Targets(CONFIG, tasks).draw(0, number) for number in range(3))
    assert one.task == two.task != other.task
    assert [spec.shape for spec in one.graph.params] == [spec.shape for spec in two.graph.params]
    assert one.seed != two.seed


def test_a_network_is_traced_once(tasks, monkeypatch):
    traced = []
    trace = module.trace
    monkeypatch.setattr(module, "trace", lambda *given: traced.append(given) or trace(*given))
    targets = Targets(CONFIG, tasks)
    for step in range(6):
        targets.draw(step, 0), targets.draw(step, 2)
    assert len(traced) <= CONFIG.networks * len(tasks)


def test_batches_are_the_same_wherever_the_data_is(tasks):
    examples = tasks["images"].examples
    batches = [
        [batch[1].tolist() for batch in examples.batches(3, 4, torch.Generator().manual_seed(1))]
        for _ in range(2)
    ]
    assert batches[0] == batches[1]
    assert len(batches[0]) == 3 and all(len(labels) == 4 for labels in batches[0])
