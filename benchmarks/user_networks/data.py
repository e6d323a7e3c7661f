"""What the suite trains on: scikit-learn's own data, this Python's sources, and generated examples."""

import argparse
import ast
import inspect
from functools import cache

import sklearn.datasets
import torch
from torch import Tensor

from user_networks.task import Batch, split


def generator(seed: int = 0) -> torch.Generator:
    """Generator of data, which are the same for every run."""
    return torch.Generator().manual_seed(seed)


def standardized(values: Tensor) -> Tensor:
    """Columns of mean 0 and deviation 1."""
    return (values - values.mean(0)) / values.std(0)


@cache
def table(name: str) -> tuple[Tensor, Tensor]:
    """One of scikit-learn's tables: standardized features, and standardized targets or class numbers."""
    features, targets = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    x, y = torch.tensor(features, dtype=torch.float32), torch.tensor(targets)
    if y.is_floating_point():
        return standardized(x), standardized(y.float().reshape(len(y), -1))
    return standardized(x), y.long()


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images in [0, 1], shape ``(1797, 1, 8, 8)``, and their digits."""
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(y)


def split_digits(flat: bool = False) -> tuple[Batch, Batch]:
    """Images and classes to train and to test on."""
    x, y = digits()
    return split(x.flatten(1) if flat else x, y)


@cache
def text(length: int) -> tuple[Batch, Batch]:
    """Pieces of two modules of the standard library, as numbers of its characters below 128."""
    source = (inspect.getsource(argparse) + inspect.getsource(ast)).encode("ascii", "replace")
    characters = torch.tensor(list(source))
    return split(characters[: len(characters) // length * length].view(-1, length))


@cache
def rings(count: int = 4096) -> Tensor:
    """Points on two noisy circles, shape ``(count, 2)``."""
    x, _ = sklearn.datasets.make_circles(count, noise=0.05, factor=0.5, random_state=0)
    return torch.tensor(x, dtype=torch.float32)


@cache
def moons(count: int = 4096) -> Tensor:
    """Points on two noisy half circles, standardized, shape ``(count, 2)``."""
    x, _ = sklearn.datasets.make_moons(count, noise=0.08, random_state=0)
    return standardized(torch.tensor(x, dtype=torch.float32))


@cache
def waves(count: int, length: int) -> Tensor:
    """Sums of three sines of random frequency and phase with a little noise, shape ``(count, length)``."""
    g = generator()
    frequency = 0.1 + 0.9 * torch.rand(count, 3, 1, generator=g)
    phase = 6.3 * torch.rand(count, 3, 1, generator=g)
    clean = (frequency * torch.arange(length) + phase).sin().sum(1) / 1.5
    return clean + 0.05 * torch.randn(count, length, generator=g)


@cache
def friedman(count: int = 2048) -> tuple[Tensor, Tensor]:
    """Friedman's first regression problem, ten features of which five matter."""
    x, y = sklearn.datasets.make_friedman1(count, noise=0.5, random_state=0)
    return torch.tensor(x, dtype=torch.float32), standardized(torch.tensor(y, dtype=torch.float32)[:, None])
