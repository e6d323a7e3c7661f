"""Small networks as people write them, with example inputs, for the golden weights beside this file."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    pairs = list(pairwise(widths))
    layers = [part for pair in pairs[:-1] for part in (nn.Linear(*pair), activation())]
    return nn.Sequential(*layers, nn.Linear(*pairs[-1]))


class ConvolutionalVAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.mean, self.log_variance = nn.Linear(128, 8), nn.Linear(128, 8)
        self.project = nn.Linear(8, 128)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (32, 2, 2)),
            nn.ConvTranspose2d(32, 16, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 4, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x)
        mean, log_variance = self.mean(h), self.log_variance(h)
        return self.decoder(self.project(mean + torch.randn_like(mean) * (log_variance / 2).exp()))


class UNet(nn.Module):
    """With time and zero-initialized ends, as diffusion models have it."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.time = mlp(16, 32, 32, activation=nn.SiLU)
        self.enter = nn.Conv2d(1, 16, 3, padding=1)
        self.down, self.middle, self.up = (self.block(size, norm) for size in ((16, 32), (32, 32), (48, 16)))
        self.shift = nn.Linear(32, 32)
        self.leave = nn.Conv2d(16, 1, 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    def block(self, size: tuple[int, int], norm: bool) -> nn.Sequential:
        first = [nn.GroupNorm(8, size[0])] if norm else []
        return nn.Sequential(*first, nn.SiLU(), nn.Conv2d(*size, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.exp(-torch.arange(8) / 2)
        time = self.shift(self.time(torch.cat([angles.sin(), angles.cos()], 1)))[:, :, None, None]
        high = self.enter(x)
        low = self.middle(self.down(F.avg_pool2d(high, 2)) + time)
        return self.leave(self.up(torch.cat([F.interpolate(low, scale_factor=2.0), high], 1)))


class Attention(nn.Module):
    """A block of a decoder without biases, queries and keys with gains."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = (
            nn.RMSNorm(width),
            nn.Linear(width, 3 * width, False),
            nn.Linear(width, width),
        )
        self.gain = nn.Parameter(torch.ones(2, 1, 16))
        self.mlp = nn.Sequential(nn.RMSNorm(width), mlp(width, 4 * width, width, activation=nn.GELU))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q * self.gain, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class Language(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(50, 32), nn.Parameter(torch.zeros(1, 12, 32))
        self.blocks = nn.Sequential(Attention(), Attention())
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 50, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.tokens(tokens) + self.places[:, : tokens.shape[1]])))


class Pooling(nn.Module):
    """A block of PoolFormer: a branch without a matrix, and one with, each with a scale."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.enter, self.head = nn.Conv2d(3, width, 4, 4), nn.Linear(width, 5)
        self.norms = nn.ModuleList([nn.GroupNorm(1, width), nn.GroupNorm(1, width)])
        self.mlp = nn.Sequential(nn.Conv2d(width, 32, 1), nn.GELU(), nn.Conv2d(32, width, 1))
        self.scales = nn.ParameterList([torch.ones(width, 1, 1), torch.ones(width, 1, 1)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        normed = self.norms[0](x)
        x = x + self.scales[0] * (F.avg_pool2d(normed, 3, 1, 1) - normed)
        x = x + self.scales[1] * self.mlp(self.norms[1](x))
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.tokens, self.rnn = nn.Embedding(30, 16), kind(16, 24, num_layers=2, batch_first=True)
        self.head = nn.Linear(24, 30)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.tokens(tokens))[0])


class Cell(nn.Module):
    """A recurrent cell written by hand, and a learned first state."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.step, self.leave = nn.Linear(8, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 3)
        self.first = nn.Parameter(torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        state = self.first.expand(len(x), -1)
        for now in x.unbind(1):
            state = torch.tanh(self.enter(now) + self.step(state))
        return self.leave(state)


class MessagePassing(nn.Module):
    """A graph convolution on a dense adjacency matrix, and attention over neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.atoms, self.first, self.second = nn.Embedding(10, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.source, self.target = nn.Parameter(torch.randn(32, 1)), nn.Parameter(torch.randn(32, 1))
        self.head = nn.Linear(32, 1)

    def forward(self, kinds: Tensor, adjacency: Tensor) -> Tensor:
        h = adjacency @ self.first(self.atoms(kinds)).relu()
        h = self.second(h)
        scores = F.leaky_relu(h @ self.source + (h @ self.target).mT, 0.2)
        return self.head((scores.softmax(-1) @ h).relu().mean(1))


class DeepSet(nn.Module):
    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.each, self.all, self.pool = mlp(3, 64, 64), mlp(64, 64, 5), pool

    def forward(self, points: Tensor) -> Tensor:
        return self.all(self.pool(self.each(points)))


class Bag(nn.Module):
    """A classifier of padded bags of words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(30, 16, padding_idx=0), mlp(16, 32, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.words(words).mean(1))


class Equalized(nn.Module):
    """Equalized learning rates, as in progressive GANs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(32, 16)), nn.Parameter(torch.zeros(32))
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.leaky_relu(F.linear(x, self.weight * 0.1, self.bias), 0.2))


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(16, 4, bias=False)
        self.first, self.second = nn.Parameter(torch.randn(4, 16, 32)), nn.Parameter(torch.randn(4, 32, 16))
        self.bias = nn.Parameter(torch.zeros(4, 32))

    def forward(self, x: Tensor) -> Tensor:
        hidden = (torch.einsum("bi,eih->beh", x, self.first) + self.bias).relu()
        return torch.einsum("be,beh,eho->bo", self.gate(x).softmax(-1), hidden, self.second)


class Splines(nn.Module):
    """A Kolmogorov-Arnold layer with Gaussian bumps, beside a linear shortcut."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.linspace(-2, 2, 8))
        self.curves = nn.Parameter(torch.randn(out, width, 8) * 0.1)
        self.shortcut = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        bumps = (-((x[..., None] - self.centers) ** 2) * 2).exp()
        return torch.einsum("bik,oik->bo", bumps, self.curves) + self.shortcut(F.silu(x))


class LowRank(nn.Module):
    """An adapter on a fixed layer: one factor random, the other zero."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(16, 16).requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(4, 16)), nn.Parameter(torch.zeros(16, 4))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.body(x) + (x @ self.a.T) @ self.b.T * 2))


class HyperNetwork(nn.Module):
    """A layer whose weights another network makes from an embedding of the task."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks, self.make = nn.Embedding(5, 8), mlp(8, 32, 16 * 8 + 16)
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        made = self.make(self.tasks(task))
        weight, bias = made[:, :128].view(-1, 16, 8), made[:, 128:]
        return self.head(torch.relu(torch.einsum("boi,bi->bo", weight, x) + bias))


class Coupling(nn.Module):
    """Two affine steps of a normalizing flow."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.log_scale = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
        self.first, self.second = mlp(1, 32, 2, activation=nn.Tanh), mlp(1, 32, 2, activation=nn.Tanh)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ((x + self.scale) * self.log_scale.exp()).chunk(2, 1)
        log, shift = self.first(a).chunk(2, 1)
        b = b * log.exp() + shift
        log_a, shift_a = self.second(b).chunk(2, 1)
        return torch.cat([a * log_a.exp() + shift_a, b], 1), (log + log_a).sum(1)


class StateSpace(nn.Module):
    """A diagonal linear recurrence as a convolution, with a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(8, 32), nn.Linear(16, 4)
        self.log_decay, self.skip = nn.Parameter(torch.rand(16)), nn.Parameter(torch.ones(16))

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.enter(x).chunk(2, -1)
        steps = torch.arange(x.shape[1])
        kernel = torch.exp(-self.log_decay.exp()[:, None] * steps)
        fft = torch.fft.rfft(u, n=2 * len(steps), dim=1) * torch.fft.rfft(kernel.T, n=2 * len(steps), dim=0)
        y = torch.fft.irfft(fft, n=2 * len(steps), dim=1)[:, : len(steps)] + u * self.skip
        return self.leave(y * F.silu(gate))


class Sines(nn.Module):
    """A coordinate network (SIREN) with its own initialization."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 64), nn.Linear(64, 64), nn.Linear(64, 3)])
        for layer in self.layers:
            nn.init.uniform_(
                layer.weight, -math.sqrt(6 / layer.in_features) / 30, math.sqrt(6 / layer.in_features) / 30
            )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.sin(30 * layer(x))
        return self.layers[-1](x)


class TiedAutoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(16, 64)), nn.Parameter(torch.zeros(64))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(F.linear(x, self.weight)), self.weight.T, self.bias)


def normalized_weights() -> nn.Module:
    first, second = (
        parametrizations.weight_norm(nn.Linear(16, 32)),
        parametrizations.spectral_norm(nn.Linear(32, 4)),
    )
    return nn.Sequential(first, nn.ReLU(), second)


def discriminator() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(16, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(32, 1, 4), nn.Flatten()),
    )


def separable() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(4, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ELU()),
        *(nn.Conv1d(16, 16, 9, padding=4, groups=16), nn.Conv1d(16, 32, 1), nn.PReLU(32)),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 3)),
    )


VECTORS, IMAGES, SEQUENCES = torch.randn(2, 16), torch.randn(2, 3, 16, 16), torch.randn(2, 6, 8)
TOKENS = torch.arange(12).reshape(2, 6)


def networks() -> dict[str, tuple[Callable[[], nn.Module], Any]]:
    """Factory and example inputs of each network, by name."""
    return {
        "mlp": (lambda: mlp(16, 64, 64, 3), VECTORS),
        "mlp with layer norms": (
            lambda: nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), mlp(32, 32, 3)),
            VECTORS,
        ),
        "deep mlp": (lambda: mlp(16, *[32] * 8, 1, activation=nn.Tanh), VECTORS),
        "convolutional vae": (ConvolutionalVAE, torch.randn(2, 1, 8, 8)),
        "u-net": (lambda: UNet(True), (torch.randn(2, 1, 8, 8), torch.rand(2))),
        "u-net without norms": (lambda: UNet(False), (torch.randn(2, 1, 8, 8), torch.rand(2))),
        "decoder": (lambda: Language(False), TOKENS),
        "decoder, tied": (lambda: Language(True), TOKENS),
        "seq2seq": (lambda: nn.Transformer(16, 2, 1, 1, 32), (torch.randn(5, 2, 16), torch.randn(4, 2, 16))),
        "pooling": (Pooling, IMAGES),
        "lstm": (lambda: Recurrent(nn.LSTM), TOKENS),
        "gru": (lambda: Recurrent(nn.GRU), TOKENS),
        "cell": (Cell, SEQUENCES),
        "message passing": (MessagePassing, (TOKENS % 10, torch.rand(2, 6, 6))),
        "deep set": (lambda: DeepSet(lambda points: points.max(1).values), torch.randn(2, 7, 3)),
        "sum over a set": (lambda: DeepSet(lambda points: points.sum(1)), torch.randn(2, 7, 3)),
        "bag of words": (Bag, TOKENS),
        "equalized learning rate": (Equalized, VECTORS),
        "experts": (Experts, VECTORS),
        "splines": (lambda: nn.Sequential(Splines(16, 8), Splines(8, 2)), VECTORS),
        "low-rank adapter": (LowRank, VECTORS),
        "hypernetwork": (HyperNetwork, (torch.randn(2, 8), torch.tensor([0, 3]))),
        "flow": (Coupling, torch.randn(2, 2)),
        "state space": (StateSpace, SEQUENCES),
        "sines": (Sines, torch.rand(9, 2)),
        "tied autoencoder": (TiedAutoencoder, torch.randn(2, 64)),
        "normalized weights": (normalized_weights, VECTORS),
        "discriminator": (discriminator, IMAGES),
        "separable": (separable, torch.randn(2, 4, 20)),
    }
