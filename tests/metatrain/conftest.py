"""A run of a few updates on digits, which most tests look at."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ghn.hypernetwork import GHN
from ghn.metatrain.config import DataConfig, MetaTrainConfig, OptimizerConfig, SamplingConfig
from ghn.metatrain.log import LOG
from ghn.metatrain.run import metatrain

SPACE = Path(__file__).parent / "tiny_space.py"

TINY = MetaTrainConfig(
    data=DataConfig(images="digits", image_size=8, image_batch=16),
    sampling=SamplingConfig(space=f"{SPACE}:TinySpace", networks=6, validation_networks=1, left_out=()),
    optimizer=OptimizerConfig(updates=4, warmup=1),
    validate_every=2,
    rank=4,
)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., MetaTrainConfig]:
    """Makes the settings of that run, with others in place of some."""

    def with_others(**settings: Any) -> MetaTrainConfig:
        return MetaTrainConfig.from_dict({**TINY.to_dict(), **settings})

    return with_others


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GHN]:
    """Its folder, and the hypernetwork that it returned."""
    folder = tmp_path_factory.mktemp("run")
    return folder, metatrain(TINY, folder)


@pytest.fixture(scope="session")
def rows() -> Callable[[Path], list[dict[str, Any]]]:
    """Reads the log of a run's folder."""

    def read(folder: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]

    return read
