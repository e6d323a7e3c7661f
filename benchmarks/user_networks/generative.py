"""Networks that make samples: adversarial, by flows, by diffusion."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from user_networks.data import generator, moons, rings, split_digits
from user_networks.tabular import mlp
from user_networks.task import Family, Parts, Task, split

network = Family("generative", (1e-3, 3e-3, 1e-2))


def adversarial(model: nn.ModuleDict, x: Tensor) -> Tensor:
    """Both players' losses at once, each with gradients for its own weights alone (not saturating)."""
    maker, judge = model["maker"], model["judge"]
    samples = maker(torch.randn(len(x), 8))
    constants = {name: weight.detach() for name, weight in judge.named_parameters()}
    against = F.softplus(judge(samples.detach())) + F.softplus(-judge(x))
    return (against + F.softplus(-functional_call(judge, constants, (samples,)))).mean()


def energy_distance(model: nn.ModuleDict, x: Tensor) -> Tensor:
    """Between samples and data: zero if their distributions are equal."""
    samples = model["maker"](torch.randn(len(x), 8))
    return (
        2 * torch.cdist(samples, x).mean() - torch.cdist(samples, samples).mean() - torch.cdist(x, x).mean()
    )


def both_players(model: nn.ModuleDict, x: Tensor) -> Parts:
    """Maker and judge are initialized one after the other."""
    return [(model["maker"], (torch.randn(len(x), 8),)), (model["judge"], (x,))]


@network
def gan_rings() -> Task:
    """Adversarial MLPs on points of two rings; reported is the samples' energy distance."""
    train, test = split(rings())

    def build() -> nn.Module:
        judge = mlp(2, 64, 64, 1, activation=lambda: nn.LeakyReLU(0.2))  # type: ignore[arg-type]
        return nn.ModuleDict({"maker": mlp(8, 64, 64, 2), "judge": judge})

    return Task(
        build=build,
        loss=adversarial,
        measure=energy_distance,
        parts=both_players,
        train=train,
        test=test,
        steps=600,
        size=128,
    )


class Flow(nn.Module):
    """Affine couplings in turn (RealNVP)."""

    def __init__(self, layers: int = 6) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(mlp(1, 32, 32, 2) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Log density, shape ``(batch,)``."""
        first, second = x[:, :1], x[:, 1:]
        volume = torch.zeros(len(x))
        for coupling in self.couplings:
            size, shift = coupling(first).chunk(2, dim=1)
            size = size.tanh()
            first, second = second * size.exp() + shift, first
            volume = volume + size[:, 0]
        squares = (first.square() + second.square())[:, 0]
        return volume - squares / 2 - math.log(2 * math.pi)


@network
def flow_moons() -> Task:
    """Normalizing flow of six affine couplings on points of two moons (loss + 2 nats)."""
    train, test = split(moons())
    # Two nats more, for the entropy of points may be below zero and losses are compared as ratios.
    return Task(
        build=Flow, loss=lambda model, x: 2 - model(x).mean(), train=train, test=test, steps=250, size=128
    )


class Noise(nn.Module):
    """Predicts the noise in points from the points and the time."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(2 + 16, 64, 64, 64, 2, activation=nn.SiLU)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Shape ``(batch, 2)``; times in [0, 1], shape ``(batch, 1)``."""
        angles = time * 2.0 ** torch.arange(8)
        return self.body(torch.cat([x, angles.sin(), angles.cos()], dim=1))


def denoising(model: nn.Module, x: Tensor, *_: Tensor) -> Tensor:
    """Mean squared error of the predicted noise at a random time."""
    time = torch.rand(len(x), 1)
    noise = torch.randn_like(x)
    angle = (time * math.pi / 2).view(-1, *[1] * (x.dim() - 1))
    return F.mse_loss(model(angle.cos() * x + angle.sin() * noise, time), noise)


def with_time(model: nn.Module, x: Tensor, *_: Tensor) -> Parts:
    """Forward passes take a time beside what is noisy."""
    return [(model, (x, torch.rand(len(x), 1)))]


@network
def diffusion_moons() -> Task:
    """SiLU MLP that predicts the noise in points of two moons."""
    train, test = split(moons())
    return Task(build=Noise, loss=denoising, parts=with_time, train=train, test=test, steps=300, size=256)


class Block(nn.Module):
    """Residual block of a diffusion U-Net, whose last convolution starts at zero."""

    def __init__(self, inputs: int, outputs: int, zero: bool, norms: bool) -> None:
        super().__init__()
        normalization = (
            (lambda channels: nn.GroupNorm(4, channels)) if norms else (lambda channels: nn.Identity())
        )
        self.first = nn.Sequential(normalization(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.time = nn.Linear(32, outputs)
        self.second = nn.Sequential(
            normalization(outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        if zero:
            last = self.second[-1]
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Features of shape ``(batch, channels, height, width)`` and of the time."""
        return self.skip(x) + self.second(self.first(x) + self.time(time)[:, :, None, None])


class DiffusionUNet(nn.Module):
    """Two resolutions, skip connections, time in every block."""

    def __init__(self, zero: bool, norms: bool = True, width: int = 16) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 32))
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.high = Block(width, width, zero, norms)
        self.down = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.low = Block(2 * width, 2 * width, zero, norms)
        self.up = nn.ConvTranspose2d(2 * width, width, 4, 2, 1)
        self.last = Block(2 * width, width, zero, norms)
        self.end = nn.Sequential(
            nn.GroupNorm(4, width) if norms else nn.Identity(), nn.SiLU(), nn.Conv2d(width, 1, 3, padding=1)
        )
        if zero:
            last = self.end[-1]
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Predicted noise, of the images' shape."""
        angles = time * 2.0 ** torch.arange(8)
        embedding = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        high = self.high(self.stem(x), embedding)
        low = self.low(self.down(high), embedding)
        return self.end(self.last(torch.cat([self.up(low), high], dim=1), embedding))


def _diffusion(zero: bool, norms: bool = True) -> Task:
    (train, _), (test, _) = split_digits()
    return Task(
        build=lambda: DiffusionUNet(zero, norms),
        loss=denoising,
        parts=with_time,
        train=(2 * train - 1,),
        test=(2 * test - 1,),
        steps=150,
        size=32,
    )


@network
def diffusion_zero_ends() -> Task:
    """Diffusion U-Net with group normalization whose blocks' and own last convolution start at zero."""
    return _diffusion(zero=True)


@network
def diffusion_default_ends() -> Task:
    """The same with PyTorch's default start everywhere."""
    return _diffusion(zero=False)


@network
def diffusion_zero_ends_plain() -> Task:
    """Diffusion U-Net with zero ends and no normalization."""
    return _diffusion(zero=True, norms=False)


class Masked(nn.Conv2d):
    """Convolution that sees pixels above and to the left alone."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, size: int, own: bool) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2)
        mask = torch.ones(size, size)
        mask[size // 2, size // 2 + own :] = 0
        mask[size // 2 + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """Keep height and width."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


@network
def pixel_cnn() -> Task:
    """Masked convolutions that predict each pixel from those before it."""
    (train, _), (test, _) = split_digits()

    def build() -> nn.Module:
        return nn.Sequential(
            *(Masked(1, 32, 5, own=False), nn.ReLU(), Masked(32, 32, 3, own=True), nn.ReLU()),
            *(Masked(32, 32, 3, own=True), nn.ReLU(), nn.Conv2d(32, 17, 1)),
        )

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return F.cross_entropy(model(x), (16 * x[:, 0]).long())

    return Task(build=build, loss=loss, train=(train,), test=(test,), steps=150, size=32)


@network
def energy_rings() -> Task:
    """Density ratio of rings to a box, by a deep tanh classifier."""
    g = generator()
    x = rings()
    box = 3 * torch.rand(x.shape, generator=g) - 1.5
    train, test = split(torch.cat([x, box]), torch.arange(2).repeat_interleave(len(x)).float()[:, None])

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(x), y)

    return Task(
        build=lambda: mlp(2, 64, 64, 64, 1, activation=nn.Tanh),
        loss=loss,
        train=train,
        test=test,
        steps=300,
        size=128,
    )
