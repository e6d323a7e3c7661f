"""What is kept of a prediction for the next one of the same graph."""

import torch
from torch import nn

from ghn.decoder import DecodeCache, Prediction
from ghn.tracing.trace import trace

GRAPH = trace(nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 300)), torch.ones(2, 300))


def decode(net, cache, seed=0, memory=2**28):
    with torch.no_grad():
        prediction = Prediction(net.decoder, net.decoder.plan(GRAPH), net.encode(GRAPH), seed, cache=cache)
        return [entry.make(None).clone() for entry in prediction.stream(memory)]


def test_factors_are_kept_and_random_numbers_of_the_latest_seed(tiny_ghn):
    cache = DecodeCache()
    decode(tiny_ghn, cache, seed=4)
    factors, blocks = dict(cache.factors), dict(cache.blocks)
    assert factors and {seed for seed, *_ in blocks} == {4}
    decode(tiny_ghn, cache, seed=4)
    assert all(cache.blocks[key] is block for key, block in blocks.items())
    decode(tiny_ghn, cache, seed=5)
    assert {seed for seed, *_ in cache.blocks} == {5}
    assert all(cache.factors[key] is pairs for key, pairs in factors.items())


def test_what_is_kept_changes_no_bit(tiny_ghn):
    cache = DecodeCache()
    for seed in (4, 4, 5, 4):
        for kept, fresh in zip(decode(tiny_ghn, cache, seed), decode(tiny_ghn, None, seed), strict=True):
            assert torch.equal(kept, fresh)


def test_no_more_is_kept_than_there_is_room_for(tiny_ghn):
    for cache, memory in ((DecodeCache(room=0), 2**28), (DecodeCache(), 2**8)):
        decode(tiny_ghn, cache, memory=memory)
        assert not cache.factors and not cache.blocks
    cache = DecodeCache()
    decode(tiny_ghn, cache, memory=2**22)
    assert sum(block.nbytes for block in cache.blocks.values()) <= 2**20
