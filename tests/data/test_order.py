"""The order of examples is a function of seed and step."""

from itertools import chain

import torch

from ghn.data.order import batch_order, evaluation_batches, training_batches
from ghn.data.text import TextSplit


def test_a_longer_run_begins_like_a_shorter_one():
    short, long = (list(batch_order(50, 8, 3, steps)) for steps in (10, 25))
    assert (len(short), len(long)) == (10, 25)
    assert long[:10] == short


def test_a_long_run_costs_nothing_before_it_starts():
    split = TextSplit(torch.arange(101, dtype=torch.int32), 5, "training")
    batches = training_batches(split, 4, seed=0, steps=10**12)
    assert next(batches)[0].shape == (4, 6)


def test_every_epoch_shows_every_example_once():
    batches = list(batch_order(24, 8, 0, 6))
    epochs = [sorted(chain.from_iterable(batches[start : start + 3])) for start in (0, 3)]
    assert epochs == [list(range(24))] * 2
    assert batches[:3] != batches[3:]


def test_seeds_differ_and_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    split = TextSplit(torch.arange(100), 4, "training")
    first, second = ([batch[0].tolist() for batch in training_batches(split, 4, seed, 5)] for seed in (0, 1))
    assert first != second
    assert torch.rand(1) == expected


def test_processes_share_each_batch():
    split = TextSplit(torch.arange(100), 4, "training")
    whole = [batch[0] for batch in training_batches(split, 6, 0, 3)]
    parts = [
        [batch[0] for batch in training_batches(split, 6, 0, 3, slice(rank, None, 2))] for rank in (0, 1)
    ]
    for batch, even, odd in zip(whole, *parts, strict=True):
        assert torch.equal(batch[0::2], even)
        assert torch.equal(batch[1::2], odd)


def test_a_batch_larger_than_the_data_is_all_of_it():
    assert [sorted(batch) for batch in batch_order(3, 64, 0, 2)] == [[0, 1, 2]] * 2


def test_evaluation_examples_are_spread_evenly():
    split = TextSplit(torch.arange(81), 4, "evaluation")
    firsts = torch.cat([batch[0][:, 0] for batch in evaluation_batches(split, 3, 5)])
    assert firsts.tolist() == [0, 16, 32, 48, 64]
