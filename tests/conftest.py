"""Tests run offline, and one thread each: several run side by side. Set before anything imports torch.

The processes that tests start inherit all of it, and find what the tests' own process does, installed or not.
"""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ghn.hypernetwork import GHN

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Imports a file of ``scripts`` by its name, anew each time."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).parents[1] / "scripts" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def tiny_ghn() -> "GHN":
    """An untrained hypernetwork of a few thousand weights, the same in every test."""
    import torch

    from ghn.decoder import DecoderConfig
    from ghn.encoder import EncoderConfig
    from ghn.hypernetwork import GHN, GHNConfig

    torch.manual_seed(0)
    config = GHNConfig(
        encoder=EncoderConfig(hidden=16, layers=1, heads=2), decoder=DecoderConfig(hidden=16, rank=4)
    )
    return GHN(config).eval()
