"""Networks of coordinates, physics, and layers that are defined by equations."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from user_networks.data import friedman, generator, split_digits
from user_networks.tabular import classification, mlp, regression
from user_networks.task import Batch, Family, Parts, Task, split

network = Family("fields", (1e-3, 3e-3, 1e-2))


def picture() -> tuple[Batch, Batch]:
    """Coordinates in [-1, 1]² and the brightness of a smooth picture with edges."""
    x = 2 * torch.rand(4096, 2, generator=generator()) - 1
    radius = x.norm(dim=1, keepdim=True)
    y = (9 * radius).sin() * (4 * x[:, :1]).cos() + (x[:, 1:] > 0.3).float()
    return split(x, y)


@network
def coordinates_relu() -> Task:
    """ReLU MLP of bare coordinates that paints a picture."""
    train, test = picture()
    return Task(
        build=lambda: mlp(2, 64, 64, 64, 1), loss=regression, train=train, test=test, steps=400, size=256
    )


class Fourier(nn.Module):
    """Fixed random sines of coordinates."""

    frequencies: Tensor

    def __init__(self, inputs: int, waves: int, size: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", size * torch.randn(inputs, waves))

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(batch, 2 * waves)``."""
        angles = x @ self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


@network
def coordinates_fourier() -> Task:
    """ReLU MLP of random Fourier features that paints a picture."""
    train, test = picture()

    def build() -> nn.Module:
        return nn.Sequential(Fourier(2, 32, 3.0), mlp(64, 64, 64, 1))

    return Task(build=build, loss=regression, train=train, test=test, steps=300, size=256)


class Sine(nn.Linear):
    """Linear map and a sine of 30 times it, started as its authors say."""

    def __init__(self, inputs: int, outputs: int, first: bool = False) -> None:
        super().__init__(inputs, outputs)
        nn.init.uniform_(self.weight, -1, 1)
        self.weight.data *= 1 / inputs if first else math.sqrt(6 / inputs) / 30

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(batch, outputs)``."""
        return (30 * super().forward(x)).sin()


@network
def coordinates_siren() -> Task:
    """SIREN with its own start that paints a picture."""
    train, test = picture()

    def build() -> nn.Module:
        return nn.Sequential(Sine(2, 64, first=True), Sine(64, 64), Sine(64, 64), nn.Linear(64, 1))

    return Task(build=build, loss=regression, train=train, test=test, steps=300, size=256)


def heat_residual(model: nn.Module, x: Tensor) -> Tensor:
    """Residual of u_t = u_xx / 10 with u = sin(pi x) at time 0 and u = 0 at both ends."""
    x = x.detach().requires_grad_()
    (first,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first[:, 0].sum(), x, create_graph=True)
    inside = (first[:, 1] - second[:, 0] / 10).square().mean()
    start = torch.stack([x[:, 0], torch.zeros(len(x))], dim=1)
    ends = torch.stack([(x[:, 0] > 0.5).float(), x[:, 1]], dim=1)
    initial = (model(start)[:, 0] - (math.pi * x[:, 0]).sin()).square().mean()
    return inside + initial + model(ends).square().mean()


@network
def physics_informed() -> Task:
    """Tanh MLP that solves the heat equation by its residual."""
    train, test = split(torch.rand(4096, 2, generator=generator()))
    return Task(
        build=lambda: mlp(2, 32, 32, 32, 1, activation=nn.Tanh),
        loss=heat_residual,
        train=train,
        test=test,
        steps=250,
        size=128,
        stacks=False,
    )


class Operator(nn.Module):
    """Branch of a function's values times trunk of a place (DeepONet)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.trunk = mlp(32, 64, 64), mlp(1, 64, 64, activation=nn.Tanh)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, values: Tensor, place: Tensor) -> Tensor:
        """Shape ``(batch, 1)``."""
        return (self.branch(values) * self.trunk(place)).sum(1, keepdim=True) + self.bias


@network
def operator_integral() -> Task:
    """DeepONet that integrates functions."""
    g = generator()
    size, grid = torch.randn(4096, 4, generator=g), torch.linspace(0, 1, 32)
    waves = math.pi * torch.arange(1, 5)
    place = torch.rand(4096, 1, generator=g)
    values = size @ (waves[:, None] * grid).sin()
    integral = (size * (1 - (waves * place).cos()) / waves).sum(1, keepdim=True)
    train, test = split(values, place, integral)
    return Task(
        build=Operator,
        loss=lambda model, v, p, y: F.mse_loss(model(v, p), y),
        parts=lambda model, v, p, y: [(model, (v, p))],
        train=train,
        test=test,
        steps=300,
        size=128,
    )


class Trajectory(nn.Module):
    """Integrates a learned velocity by Runge and Kutta's method."""

    def __init__(self, steps: int = 8) -> None:
        super().__init__()
        self.velocity, self.steps = mlp(2, 48, 48, 2, activation=nn.Tanh), steps

    def forward(self, x: Tensor) -> Tensor:
        """Places along the way, shape ``(steps, batch, 2)``."""
        places, size = [], 2.0 / self.steps
        for _ in range(self.steps):
            a = self.velocity(x)
            b = self.velocity(x + size / 2 * a)
            x = x + size * b
            places.append(x)
        return torch.stack(places)


@network
def neural_ode() -> Task:
    """Neural ODE that learns a spiral from places along it."""
    start = 4 * torch.rand(2048, 2, generator=generator()) - 2
    matrix = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])
    times = torch.linspace(0.25, 2, 8)
    places = torch.stack([start @ torch.matrix_exp(t * matrix).T for t in times], dim=1)
    train, test = split(start, places)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(model(x), y.transpose(0, 1))

    return Task(build=Trajectory, loss=loss, train=train, test=test)


class Equilibrium(nn.Module):
    """Repeats one layer until it hardly changes, then reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.again, self.end = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        features = self.read(x)
        state = torch.zeros_like(features)
        for _ in range(10):
            state = torch.tanh(self.again(state) + features)
        return self.end(state)


@network
def deep_equilibrium() -> Task:
    """Deep equilibrium layer (ten iterations) on flat digits."""
    train, test = split_digits(flat=True)
    return Task(build=Equilibrium, loss=classification, train=train, test=test, steps=150)


class Splines(nn.Module):
    """Layer of a Kolmogorov-Arnold network: a learned function of each input for each output."""

    knots: Tensor

    def __init__(self, inputs: int, outputs: int, knots: int = 8) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs)
        self.coefficients = nn.Parameter(0.1 * torch.randn(outputs, inputs, knots) / math.sqrt(inputs))
        self.register_buffer("knots", torch.linspace(-2, 2, knots))

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(batch, outputs)``."""
        bumps = (-((x[..., None] - self.knots) * 2).square()).exp()
        return self.base(F.silu(x)) + torch.einsum("bik,oik->bo", bumps, self.coefficients)


@network
def kolmogorov_arnold() -> Task:
    """Kolmogorov-Arnold network of radial bumps, generated regression."""
    train, test = split(*friedman())
    return Task(
        build=lambda: nn.Sequential(Splines(10, 16), Splines(16, 16), Splines(16, 1)),
        loss=regression,
        train=train,
        test=test,
    )


class Generated(nn.Module):
    """A network whose weights another network makes of a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.maker = mlp(4, 64, 2 * 32 + 32 + 32 + 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Values at points of shape ``(batch, 2)``."""
        first, shift, second, last = self.maker(condition).split([64, 32, 32, 1], dim=1)
        hidden = torch.bmm(first.view(-1, 32, 2), x[:, :, None])[:, :, 0] + shift
        return (F.relu(hidden) * second).sum(1, keepdim=True) + last


@network
def hypernetwork() -> Task:
    """Hypernetwork that makes a small network of a condition, generated regression."""
    g = generator()
    x, condition = torch.randn(4096, 2, generator=g), torch.randn(4096, 4, generator=g)
    y = (condition[:, :1] * x[:, :1] + condition[:, 1:2]).sin() + condition[:, 2:3] * x[:, 1:].abs()
    train, test = split(x, condition, y)
    return Task(
        build=Generated,
        loss=lambda model, x, c, y: F.mse_loss(model(x, c), y),
        parts=lambda model, x, c, y: [(model, (x, c))],
        train=train,
        test=test,
        steps=400,
        size=128,
    )


class Set(nn.Module):
    """A function of each point, their sum, and a function of that."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.each, self.all, self.pool = mlp(2, 64, 64), mlp(64, 64, 2), pool

    def forward(self, x: Tensor) -> Tensor:
        """Sets of points, shape ``(batch, points, 2)``."""
        return self.all(self.pool(self.each(x)))


def _sets() -> tuple[Batch, Batch]:
    g = generator()
    x = torch.randn(2048, 16, 2, generator=g)
    y = torch.stack([x[..., 0].amax(1), x.norm(dim=2).mean(1)], dim=1)
    return split(x, y + 0.1 * torch.randn(y.shape, generator=g))


@network
def deep_sets_sum() -> Task:
    """DeepSets that add points up: their largest coordinate and mean distance."""
    train, test = _sets()
    return Task(
        build=lambda: Set(lambda each: each.sum(1)), loss=regression, train=train, test=test, steps=400
    )


@network
def deep_sets_max() -> Task:
    """The same with the largest value of each channel, as PointNet."""
    train, test = _sets()
    return Task(build=lambda: Set(lambda each: each.amax(1)), loss=regression, train=train, test=test)


def _pair(model: nn.Module, first: Tensor, second: Tensor) -> Parts:
    return [(model, (first, second))]


class Towers(nn.Module):
    """Two encoders whose vectors are compared by angle, with a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.upper, self.lower = mlp(32, 64, 32), mlp(32, 64, 32)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Similarities of all pairs, shape ``(batch, batch)``."""
        upper, lower = F.normalize(self.upper(first), dim=1), F.normalize(self.lower(second), dim=1)
        return self.log_scale.exp() * upper @ lower.T


@network
def two_towers() -> Task:
    """Contrastive two-tower network that matches upper to lower halves of digits."""
    (train, _), (test, _) = split_digits(flat=True)

    def loss(model: nn.Module, first: Tensor, second: Tensor) -> Tensor:
        return F.cross_entropy(model(first, second), torch.arange(len(first)))

    return Task(
        build=Towers,
        loss=loss,
        parts=_pair,
        train=(train[:, :32], train[:, 32:]),
        test=(test[:128, :32], test[:128, 32:]),
        size=128,
    )
