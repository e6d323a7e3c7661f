"""Fully connected networks on tables and flat images."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from user_networks.data import friedman, generator, split_digits, table
from user_networks.task import Family, Task, split

network = Family("tabular", (1e-3, 3e-3, 1e-2))


def mlp(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear maps with an activation between each two."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def regression(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(model(x), y)


def classification(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross entropy."""
    return F.cross_entropy(model(x), y)


@network
def mlp_diabetes() -> Task:
    """ReLU MLP of two hidden layers, regression on the diabetes table."""
    data = table("diabetes")
    return Task(build=lambda: mlp(10, 64, 64, 1), loss=regression, train=data, test=data, steps=60)


@network
def mlp_linnerud() -> Task:
    """ReLU MLP, three targets from twenty rows of three features."""
    data = table("linnerud")
    return Task(build=lambda: mlp(3, 32, 32, 3), loss=regression, train=data, test=data, steps=150, size=20)


@network
def mlp_cancer() -> Task:
    """ReLU MLP, classification on the breast cancer table."""
    data = table("breast_cancer")
    return Task(build=lambda: mlp(30, 32, 32, 2), loss=classification, train=data, test=data, steps=60)


@network
def mlp_wine() -> Task:
    """ReLU MLP with dropout, classification on the wine table."""
    data = table("wine")

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(13, 64), nn.ReLU(), nn.Dropout(0.2), mlp(64, 64, 3))

    return Task(build=build, loss=classification, train=data, test=data, steps=30, size=32)


@network
def mlp_digits() -> Task:
    """ReLU MLP of one hidden layer on flat digits."""
    train, test = split_digits(flat=True)
    return Task(build=lambda: mlp(64, 128, 10), loss=classification, train=train, test=test)


@network
def mlp_friedman() -> Task:
    """ReLU MLP of three hidden layers, generated regression."""
    train, test = split(*friedman())
    return Task(build=lambda: mlp(10, 64, 64, 64, 1), loss=regression, train=train, test=test)


@network
def mlp_deep_digits() -> Task:
    """ReLU MLP of eight hidden layers without normalization on flat digits."""
    train, test = split_digits(flat=True)
    return Task(build=lambda: mlp(64, *[64] * 8, 10), loss=classification, train=train, test=test)


@network
def mlp_tanh_friedman() -> Task:
    """Tanh MLP of four hidden layers, generated regression."""
    train, test = split(*friedman())
    return Task(
        build=lambda: mlp(10, 64, 64, 64, 64, 1, activation=nn.Tanh), loss=regression, train=train, test=test
    )


@network
def mlp_silu_friedman() -> Task:
    """SiLU MLP of four hidden layers, generated regression."""
    train, test = split(*friedman())
    return Task(
        build=lambda: mlp(10, 64, 64, 64, 64, 1, activation=nn.SiLU), loss=regression, train=train, test=test
    )


@network
def mlp_own_start_digits() -> Task:
    """ReLU MLP whose owner asked for Xavier weights and zero biases, on flat digits."""
    train, test = split_digits(flat=True)

    def start(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)

    return Task(build=lambda: mlp(64, 128, 128, 10).apply(start), loss=classification, train=train, test=test)


class Residual(nn.Module):
    """``x`` plus an MLP of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = mlp(width, width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape ``(batch, width)``."""
        return x + self.branch(x)


@network
def mlp_residual_friedman() -> Task:
    """Four residual blocks of a ReLU MLP without normalization, generated regression."""
    train, test = split(*friedman())

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(10, 64), *[Residual(64) for _ in range(4)], nn.Linear(64, 1))

    return Task(build=build, loss=regression, train=train, test=test)


class Entities(nn.Module):
    """Embeds categories and concatenates numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(20, 8) for _ in range(3))
        self.body = mlp(3 * 8 + 4, 64, 32, 1)

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        """Categories of shape ``(batch, 3)``, numbers of shape ``(batch, 4)``."""
        vectors = [table(column) for table, column in zip(self.tables, categories.T, strict=True)]
        return self.body(torch.cat([*vectors, numbers], dim=1))


@network
def entity_embeddings() -> Task:
    """Embeddings of three categories beside four numbers, generated regression."""
    g = generator()
    categories, numbers = torch.randint(20, (2048, 3), generator=g), torch.randn(2048, 4, generator=g)
    effects = torch.randn(3, 20, generator=g)
    y = sum(effects[column][categories[:, column]] for column in range(3)) + numbers[:, 0] * numbers[:, 1]
    train, test = split(categories, numbers, torch.as_tensor(y)[:, None] / 2)
    return Task(
        build=Entities,
        loss=lambda model, c, n, y: F.mse_loss(model(c, n), y),
        parts=lambda model, c, n, y: [(model, (c, n))],
        train=train,
        test=test,
    )


class Factorization(nn.Module):
    """Dot products of users' and items' vectors, plus their biases."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(200, 16), nn.Embedding(100, 16)
        self.user_bias, self.item_bias = nn.Embedding(200, 1), nn.Embedding(100, 1)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Ratings, shape ``(batch,)``."""
        biases = self.user_bias(users) + self.item_bias(items)
        return (self.users(users) * self.items(items)).sum(1) + biases[:, 0]


@network
def matrix_factorization() -> Task:
    """Recommender of users' and items' embeddings on generated ratings."""
    g = generator()
    users, items = torch.randint(200, (8192,), generator=g), torch.randint(100, (8192,), generator=g)
    tastes, traits = torch.randn(200, 3, generator=g), torch.randn(100, 3, generator=g)
    ratings = (tastes[users] * traits[items]).sum(1) / 1.7 + 0.1 * torch.randn(8192, generator=g)
    train, test = split(users, items, ratings)
    return Task(
        build=Factorization,
        loss=lambda model, u, i, y: F.mse_loss(model(u, i), y),
        parts=lambda model, u, i, y: [(model, (u, i))],
        train=train,
        test=test,
        steps=400,
        size=256,
    )
