"""Comparisons small enough to run in a second."""

import pytest

from ghn.finetune.config import CompareConfig


@pytest.fixture
def tiny(tmp_path):
    """Makes configurations of two arms on digits, for overriding."""

    def make(**overrides) -> CompareConfig:
        values = {
            "model": "timm:test_resnet",
            "dataset": "digits",
            "inits": ("random", "orthogonal"),
            "seeds": (0,),
            "lr": (1e-3,),
            "steps": 3,
            "batch_size": 8,
            "eval_samples": 16,
            "device": "cpu",
            "output_dir": str(tmp_path / "out"),
        }
        return CompareConfig(**{**values, **overrides})

    return make


@pytest.fixture
def tiny_text(tiny):
    """The same with a language model on the source of the Python library."""

    def make(**overrides) -> CompareConfig:
        values = {
            "model": "hf:gpt2",
            "model_kwargs": {"n_layer": 1, "n_embd": 32, "n_head": 2},
            "dataset": "python-stdlib",
            "sequence_length": 32,
        }
        return tiny(**{**values, **overrides})

    return make
