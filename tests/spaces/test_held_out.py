"""The held-out list is fixed, complete, and apart from everything that is trained on."""

import hashlib

import pytest
import torch

from ghn.spaces import LARGEST, Architecture, held_out
from ghn.spaces.held_out import VERSION
from ghn.tracing.trace import trace

FINGERPRINTS = {1: "82f5f73c8ef20d49"}
"""Of the list at its default sizes, by version: who changes the list makes a new version."""


def test_list_is_that_of_its_version() -> None:
    text = "\n".join(architecture.key for architecture in held_out())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == FINGERPRINTS[VERSION]


def test_enough_models_and_families() -> None:
    listed = held_out()
    unseen = [architecture for architecture in listed if architecture.family not in LARGEST]
    assert len(listed) >= 24 and len({architecture.key for architecture in listed}) == len(listed)
    assert len({architecture.family for architecture in unseen}) >= 8
    assert {architecture.task for architecture in unseen} == {"images", "text"}
    specs = {architecture.spec.partition(":")[2] for architecture in listed}
    assert specs >= {
        "resnet18",
        "resnet34",
        "vit_tiny_patch16_224",
        "vit_small_patch16_224",
        "convnext_atto",
        "mobilenetv3_small_100",
        "regnetx_002",
        "swin_tiny_patch4_window7_224",
    }
    assert "mixer" in {architecture.family for architecture in listed}
    assert {architecture.depth for architecture in listed if architecture.family == "gpt2"} == {6, 12}


def test_families_that_are_trained_on_are_deeper_or_wider_here() -> None:
    for architecture in held_out():
        if architecture.family in LARGEST:
            depth, width = LARGEST[architecture.family]
            assert architecture.depth > depth or architecture.width > width, architecture.key


@pytest.mark.parametrize("architecture", held_out(16, 8), ids=lambda entry: f"{entry.family}-{entry.width}")
def test_held_out_networks_trace_completely(architecture: Architecture) -> None:
    text = architecture.task == "text"
    model = architecture.build(device="meta", **({} if text else {"num_classes": 10}))
    tokens = {"input_ids": torch.zeros(2, 4, dtype=torch.long), "use_cache": False}
    graph = trace(model, tokens if text else torch.randn(2, 3, 16, 16))
    assert graph.coverage() == 1.0
    assert all(spec.role not in ("unknown", "matrix") for spec in graph.params)
