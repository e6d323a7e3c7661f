"""Targets are functions of seed, update and number; each network is traced once."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

from ghn.decoder import DecoderConfig
from ghn.errors import OutputError
from ghn.graph.trace import trace
from ghn.hypernetwork import GHNConfig
from ghn.metatrain import graphs
from ghn.metatrain import targets as module
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.graphs import Graphs
from ghn.metatrain.loop import LOG, metatrain
from ghn.metatrain.targets import Targets
from ghn.metatrain.tasks import load_tasks

CPU = torch.device("cpu")
CONFIG = MetaTrainConfig(targets_per_step=4, bases=2, networks=2, text_tokens=10_000, ghn=GHNConfig())


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


def test_a_network_is_traced_once_also_by_later_calls(tasks, monkeypatch, tmp_path):
    traced = []
    trace = module.trace
    monkeypatch.setattr(module, "trace", lambda *given: traced.append(given) or trace(*given))
    targets = Targets(CONFIG, tasks, tmp_path / "graphs")
    drawn = [targets.draw(step, number) for step in range(6) for number in (0, 2)]
    count = len(traced)
    assert 0 < count <= CONFIG.networks * len(tasks)
    files = sorted((tmp_path / "graphs").iterdir())
    assert len(files) == count and all(file.stat().st_size < 20_000 for file in files)
    later = Targets(CONFIG, tasks, tmp_path / "graphs")
    for number, one in enumerate(drawn[:4]):
        assert one.graph == later.draw(number // 2, 2 * (number % 2)).graph
    assert len(traced) == count
    files[0].write_bytes(files[0].read_bytes()[:-20])
    files[1].write_bytes(b"")
    again = Targets(CONFIG, tasks, tmp_path / "graphs")
    for step in range(6):
        again.draw(step, 0), again.draw(step, 2)
    assert len(traced) == count + 2


def test_graphs_of_other_code_or_libraries_are_not_taken(tmp_path, monkeypatch):
    made = []
    graph = trace(nn.Linear(2, 3), torch.zeros(1, 2))
    for origin in ("old", "new", "new"):
        monkeypatch.setattr(graphs, "_origin", lambda origin=origin: origin)
        kept, _, _ = Graphs(DecoderConfig(), tmp_path).get("key", lambda: made.append(1) or graph)
        assert kept == graph
    assert len(made) == 2
    with pytest.raises(OutputError, match="can't be made"):
        (tmp_path / "file").touch()
        Graphs(DecoderConfig(), tmp_path / "file").get("key", lambda: graph)


def test_batches_are_the_same_wherever_the_data_is(tasks):
    fetched = tasks["images"].examples
    kept = copy.copy(fetched)
    kept._kept = tuple(fetched._split.__getitems__(list(range(len(fetched._split)))))  # as on a GPU
    batches = [
        [batch[1].tolist() for batch in examples.batches(3, 4, torch.Generator().manual_seed(1))]
        for examples in (fetched, kept)
    ]
    assert batches[0] == batches[1]
    assert len(batches[0]) == 3 and all(len(labels) == 4 for labels in batches[0])


def test_one_hypernetwork_learns_from_vocabularies_of_bytes_and_of_pairs_of_them(tmp_path):
    """A tokenizer of byte pairs, in a folder as transformers leaves it, makes a task of its own."""
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer, pairs.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    text = ["import this and that from here and there, as one did before; " * 20]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pairs.train_from_iterator(text, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    PreTrainedTokenizerFast(tokenizer_object=pairs, eos_token="<end>").save_pretrained(tmp_path / "pairs")
    config = replace(CONFIG, images="", tokenizers=("bytes", str(tmp_path / "pairs")), steps=1)
    tasks = load_tasks(config, CPU)
    assert tasks["text"].width == 384 and 256 < tasks["text1"].width <= 301
    targets = Targets(config, tasks)
    rows = [max(spec.shape[0] for spec in targets.draw(0, number).graph.params) for number in (0, 2)]
    assert rows[0] >= tasks["text"].width and rows[1] >= tasks["text1"].width
    metatrain(config, tmp_path / "run", device="cpu")
    (row,) = map(json.loads, (tmp_path / "run" / LOG).read_text().splitlines())
    assert row["skipped"] == 0 and row["loss/text"] > 0 and row["loss/text1"] > 0
