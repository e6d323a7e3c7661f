"""Tasks: what networks read, and what they are judged by."""

import math

import pytest
import torch

from ghn.data.images import digits
from ghn.data.text import load_tokenizer, python_stdlib
from ghn.tasks import ImageClassification, LanguageModeling, logits_of

CPU = torch.device("cpu")


def numbers(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_images_are_normalized_and_sometimes_grey() -> None:
    data = digits().fit(8, 3)
    task = ImageClassification(data)
    (images,), labels = task.inputs(data.train.__getitems__(list(range(500))), CPU)
    assert images.mean().abs() < 0.1 and images.std() == pytest.approx(1, abs=0.1)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.max() < task.arguments["num_classes"] == 10
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=numbers(0))
    batch = pixels, torch.zeros(4)
    for share, greys in ((0.0, 0), (1.0, 8)):
        task = ImageClassification(data, grey=share)
        found = [task.inputs(batch, CPU, numbers(seed))[0][0] for seed in range(8)]
        assert sum(bool((images.std(1) < 1e-6).all()) for images in found) == greys
    plain = ImageClassification(data, grey=1.0).inputs(batch, CPU)[0][0]
    assert plain.std(1).min() > 0


def test_texts_are_judged_in_bits_per_byte() -> None:
    data = python_stdlib().tokenize(load_tokenizer("bytes"), 16, 2**14)
    task = LanguageModeling(data)
    inputs, targets = task.inputs(data.train.__getitems__([0, 1]), CPU)
    assert inputs["input_ids"].shape == targets.shape == (2, 16)
    assert inputs["input_ids"][:, 1:].equal(targets[:, :-1])
    uniform = torch.zeros(2, 16, data.vocabulary)
    loss, right = task.loss(uniform, targets)
    assert loss.item() == pytest.approx(math.log(data.vocabulary)) and right == 0
    bits = math.log2(data.vocabulary) / data.bytes_per_token
    assert task.metric(loss.item(), 0.0) == pytest.approx(-bits)


def test_examples_to_trace_with_are_two() -> None:
    task = ImageClassification(digits().fit(8, 3))
    assert task.example()[0].shape == (2, 3, 8, 8)


def test_logits_are_found_in_what_networks_return() -> None:
    logits = torch.zeros(1, 2)
    assert logits_of((logits, 1)) is logits and logits_of(logits) is logits
