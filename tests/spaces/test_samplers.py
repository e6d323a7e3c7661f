"""Samplers of targets: every draw builds, traces completely and is a function of the seed."""

import random

import pytest

from ghn.graph.trace import trace
from ghn.spaces import Architecture, sample_cnn, sample_gpt2, sample_vit


def draw(kind: str, seed: int) -> Architecture:
    rng = random.Random(seed)
    if kind == "cnn":
        return sample_cnn(rng)
    return sample_vit(rng, image_size=16) if kind == "vit" else sample_gpt2(rng, vocabulary=50, length=8)


@pytest.mark.parametrize("kind", ["cnn", "vit", "gpt2"])
def test_draws_trace_completely(kind: str) -> None:
    for seed in range(3):
        model = draw(kind, seed).build(**({} if kind == "gpt2" else {"num_classes": 10}))
        graph = trace(model)
        assert graph.coverage() == 1.0
        assert all(spec.role not in ("unknown", "matrix") for spec in graph.params)


@pytest.mark.parametrize("kind", ["cnn", "vit", "gpt2"])
def test_draws_depend_on_the_seed_alone_and_vary(kind: str) -> None:
    assert draw(kind, 5) == draw(kind, 5)
    different = {repr(draw(kind, seed)) for seed in range(200)}
    assert len(different) > 30
