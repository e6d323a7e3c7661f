"""Networks that nobody wrote: drawn at random over the operations and habits that networks are written with.

A network is a list of steps, each of which takes one or more values of a kind (pixels, tokens, features) and gives
another; the same seed draws the same network. Every operation is written as people write it, and some are what people
should not do but do: weights that are shared, reshaped, sliced, computed, written in place.
"""

import math
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import ghn
from ghn.graph.graph import ComputationGraph
from ghn.hypernetwork import GHN
from robust.habits import FEATURE_HABITS, TOKEN_HABITS

BATCH = 2


@dataclass(frozen=True)
class Network:
    """A module with inputs that it runs on."""

    seed: int
    model: nn.Module
    inputs: tuple[Tensor, ...]
    operations: tuple[str, ...]
    """Names of the steps, for whoever looks for what broke."""


class Named(NamedTuple):
    """Outputs of some networks."""

    result: Tensor
    hidden: Tensor


@dataclass
class Record:
    """Outputs of others."""

    result: Tensor
    hidden: Tensor


# Steps on features, shape (batch, width).


class Linear(nn.Module):
    def __init__(self, draw: random.Random, width: int, out: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, out, bias=draw.random() < 0.7)
        self.act = activation(draw)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.map(x))


class ByHand(nn.Module):
    """A map whose weight is a bare parameter, used in one of the ways there are."""

    def __init__(self, draw: random.Random, width: int, out: int) -> None:
        super().__init__()
        self.how = draw.choice(
            ("matmul", "functional", "einsum", "addmm", "transposed", "stacked", "computed", "cut")
        )
        shape = {
            "matmul": (width, out),
            "addmm": (width, out),
            "stacked": (2, out, width),
            "cut": (out * width + out,),
        }
        self.weight = nn.Parameter(torch.randn(shape.get(self.how, (out, width))) / math.sqrt(width))
        self.bias = nn.Parameter(torch.zeros(out)) if self.how != "cut" else None
        self.gain = nn.Parameter(torch.ones(out, 1)) if self.how == "computed" else None
        self.out = out

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if self.how == "cut":
            matrix, own = weight.split([weight.numel() - self.out, self.out])
            return F.linear(x, matrix.view(self.out, -1), own)
        assert bias is not None
        if self.how == "matmul":
            return x @ weight + bias
        if self.how == "addmm":
            return torch.addmm(bias, x, weight) if x.dim() == 2 else x @ weight + bias
        if self.how == "einsum":
            return torch.einsum("...i,oi->...o", x, weight) + bias
        if self.how == "transposed":
            return torch.matmul(x, weight.t()).add_(bias)
        if self.how == "stacked":
            return F.linear(x, weight[0], bias) + torch.tanh(F.linear(x, weight[1]))
        if self.how == "computed":
            assert self.gain is not None
            return F.linear(x, self.gain * F.normalize(weight, dim=1), bias)
        return F.linear(x, weight, bias)


class Shared(nn.Module):
    """One layer used several times, in a loop."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.map, self.times = nn.Linear(width, width), draw.randint(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = x + torch.tanh(self.map(x))
        return x


class Residual(nn.Module):
    """Branches that are added, some scaled by a parameter."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), activation(draw), nn.Linear(width, width))
            for _ in range(draw.randint(1, 3))
        )
        self.scale = (
            nn.Parameter(torch.full((draw.choice((1, width)),), 0.1)) if draw.random() < 0.5 else None
        )
        self.inplace = draw.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        total = x.clone()
        for branch in self.branches:
            out = branch(x) if self.scale is None else self.scale * branch(x)
            if self.inplace:
                total += out
            else:
                total = total + out
        return total


class Gated(nn.Module):
    """Two halves of one map, one the gate of the other."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.maps, self.back = nn.Linear(width, 4 * width), nn.Linear(2 * width, width)
        self.how = draw.choice(("chunk", "split", "slice", "unbind", "glu"))

    def forward(self, x: Tensor) -> Tensor:
        both = self.maps(x)
        half = both.shape[-1] // 2
        if self.how == "glu":
            return self.back(F.glu(both, dim=-1))
        if self.how == "chunk":
            a, b = both.chunk(2, dim=-1)
        elif self.how == "split":
            a, b = both.split(half, dim=-1)
        elif self.how == "slice":
            a, b = both[..., :half], both[..., half:]
        else:
            a, b = both.unflatten(-1, (2, half)).unbind(-2)
        return self.back(F.silu(a) * b)


class Norm(nn.Module):
    """Normalizations of modules and by hand, over the last axis."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.how = draw.choice(("layer", "plain", "rms", "hand", "functional", "unit"))
        self.norm = (
            nn.LayerNorm(width, elementwise_affine=self.how == "layer")
            if self.how in ("layer", "plain")
            else None
        )
        own = self.how in ("rms", "hand", "functional")
        self.weight = nn.Parameter(torch.ones(width)) if own else None
        self.bias = nn.Parameter(torch.zeros(width)) if self.how in ("hand", "functional") else None

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is not None:
            return self.norm(x)
        if self.how == "unit":
            return F.normalize(x, dim=-1)
        assert self.weight is not None
        if self.how == "rms":
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight
        if self.how == "functional":
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias)
        spread = (x - x.mean(-1, keepdim=True)).pow(2).mean(-1, keepdim=True)
        assert self.bias is not None
        return (x - x.mean(-1, keepdim=True)) / torch.sqrt(spread + 1e-5) * self.weight + self.bias


class Experts(nn.Module):
    """A soft mixture: weights of all experts in one tensor, or experts in a list."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.count = draw.randint(2, 3)
        self.router = nn.Linear(width, self.count, bias=False)
        stacked = draw.random() < 0.5
        self.weights = nn.Parameter(torch.randn(self.count, width, width) * 0.1) if stacked else None
        self.experts = None if stacked else nn.ModuleList(nn.Linear(width, width) for _ in range(self.count))

    def forward(self, x: Tensor) -> Tensor:
        share = self.router(x).softmax(-1)
        if self.weights is not None:
            return torch.einsum("...e,...i,eio->...o", share, x, self.weights)
        assert self.experts is not None
        return sum(share[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class LowRank(nn.Module):
    """A frozen map with an adapter."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.base = nn.Linear(width, width)
        for parameter in self.base.parameters():
            parameter.requires_grad_(draw.random() < 0.3)
        self.down, self.up = nn.Parameter(torch.randn(4, width) * 0.1), nn.Parameter(torch.zeros(width, 4))
        self.merged = draw.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:
            return F.linear(x, self.base.weight + 0.5 * self.up @ self.down, self.base.bias)
        return self.base(x) + F.linear(F.linear(x, self.down), self.up) * 0.5


class Hyper(nn.Module):
    """A weight that is made from an embedding."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.randn(4))
        self.make = nn.Linear(4, width * width)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.make(self.code).view(self.width, self.width))


class Reparametrized(nn.Module):
    """Layers of torch whose weight is computed."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        how = draw.choice(
            (parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal)
        )
        self.map = how(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)


class Scaled(nn.Module):
    """Parameters that multiply, shift or bend activations."""

    step: Tensor

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.how = draw.choice(("affine", "exp", "softplus", "prelu", "temperature", "none"))
        self.a = nn.Parameter(torch.zeros(width) if self.how in ("exp", "softplus") else torch.ones(width))
        self.b = nn.Parameter(torch.zeros(width)) if self.how == "affine" else None
        self.unused = nn.Parameter(torch.randn(3)) if draw.random() < 0.2 else None
        self.register_buffer("step", torch.tensor(0.5), persistent=draw.random() < 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "affine":
            return torch.addcmul(self.b, x, self.a) if self.b is not None else x
        if self.how == "exp":
            return x * self.a.exp()
        if self.how == "softplus":
            return x * F.softplus(self.a)
        if self.how == "prelu":
            return torch.where(x > 0, x, x * self.a * 0.25)
        if self.how == "temperature":
            return x / (self.a.abs().mean() + self.step)
        return x * self.step


class Views(nn.Module):
    """Shapes that go there and back, with a map in between."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.heads = draw.choice((2, 4))
        self.map = nn.Linear(width // self.heads, width // self.heads)
        self.how = draw.choice(("view", "reshape", "permute", "stack", "roll", "expand", "gather", "scatter"))

    def forward(self, x: Tensor) -> Tensor:
        parts = x.reshape(*x.shape[:-1], self.heads, -1)
        if self.how == "permute":
            swap = (*range(x.dim() - 1), x.dim(), x.dim() - 1)
            out = self.map(parts).permute(swap).contiguous().permute(swap)
        elif self.how == "stack":
            out = torch.stack([self.map(part) for part in parts.unbind(-2)], dim=-2)
        elif self.how == "roll":
            out = self.map(torch.roll(parts, 1, dims=-2)).flip(-1)
        elif self.how == "expand":
            out = self.map(parts) + parts.mean(-2, keepdim=True).expand_as(parts)
        elif self.how == "gather":
            order = torch.arange(self.heads - 1, -1, -1, device=x.device)
            out = self.map(parts).index_select(-2, order)
        elif self.how == "scatter":
            out = torch.zeros_like(parts)
            out[..., 0, :] = self.map(parts[..., 0, :])
            out[..., 1:, :] += parts[..., 1:, :]
        else:
            out = self.map(parts)
        return out.reshape(x.shape) if self.how != "view" else out.contiguous().view(x.shape)


class InPlace(nn.Module):
    """What people write with an underscore."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width)
        self.shift = nn.Parameter(torch.zeros(width))
        self.how = draw.choice(("add", "mul", "relu", "masked", "copy", "out"))

    def forward(self, x: Tensor) -> Tensor:
        y = self.map(x)
        if self.how == "add":
            y.add_(self.shift).add_(x)
        elif self.how == "mul":
            y = y.mul_(1 + self.shift).div_(2.0)
        elif self.how == "relu":
            F.relu_(y)
        elif self.how == "masked":
            y = y.masked_fill_(x > 3, 0.0) + self.shift
        elif self.how == "copy":
            z = torch.empty_like(y)
            z.copy_(y)
            y = z + self.shift
        else:
            y = y.clamp_(-4, 4) + self.shift[: x.shape[-1]]
        return y


class Branching(nn.Module):
    """Python that looks at shapes, modes and attributes."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.maps = nn.ModuleDict({"even": nn.Linear(width, width), "odd": nn.Linear(width, width)})
        self.drop, self.rate = nn.Dropout(0.1), draw.random()

    def forward(self, x: Tensor) -> Tensor:
        x = self.maps["even" if x.shape[-1] % 2 == 0 else "odd"](x)
        if self.training and self.rate > 0.5:
            x = self.drop(x)
        elif x.dim() > 2 and self.rate > 0.25:
            x = x - x.mean(1, keepdim=True)
        return x


class Buffered(nn.Module):
    """A buffer that is read, written, or both."""

    mean: Tensor
    count: Tensor

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.map, self.how = nn.Linear(width, width), draw.choice(("read", "mean", "count"))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "mean" and self.training:
            with torch.no_grad():
                self.mean.lerp_(x.detach().flatten(0, -2).mean(0), 0.1)
        elif self.how == "count":
            self.count += 1
        return self.map(x - self.mean)


# Steps on tokens, shape (batch, tokens, width).


class Attention(nn.Module):
    """By hand, by torch's function, or by torch's module."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.how, self.heads = (
            draw.choice(("hand", "function", "module", "separate", "pooled")),
            draw.choice((1, 2, 4)),
        )
        self.qkv = (
            nn.Linear(width, 3 * width, bias=draw.random() < 0.5)
            if self.how in ("hand", "function")
            else None
        )
        self.each = (
            nn.ModuleList(nn.Linear(width, width) for _ in range(3)) if self.how == "separate" else None
        )
        self.module = (
            nn.MultiheadAttention(width, self.heads, batch_first=True) if self.how == "module" else None
        )
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02) if self.how == "pooled" else None
        self.out = nn.Linear(width, width) if self.how != "module" else None
        self.bias = (
            nn.Parameter(torch.zeros(self.heads, 16, 16))
            if self.how == "hand" and draw.random() < 0.5
            else None
        )
        self.causal = draw.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        if self.module is not None:
            return x + self.module(x, x, x, need_weights=False)[0]
        assert self.out is not None
        if self.query is not None:
            share = (self.query.expand(batch, -1, -1) @ x.transpose(1, 2) / math.sqrt(width)).softmax(-1)
            return x + self.out(share @ x)
        if self.qkv is not None:
            q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        else:
            assert self.each is not None
            q, k, v = (one(x).view(batch, tokens, self.heads, -1).transpose(1, 2) for one in self.each)
        if self.how == "function":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            if self.bias is not None:
                scores = scores + self.bias[:, :tokens, :tokens]
            if self.causal:
                mask = torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).tril()
                scores = scores.masked_fill(~mask, float("-inf"))
            y = scores.softmax(-1) @ v
        return x + self.out(y.transpose(1, 2).reshape(batch, tokens, width))


class Positions(nn.Module):
    """Learned, by an embedding, a parameter, or of waves."""

    waves: Tensor

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.how = draw.choice(("embedding", "parameter", "waves", "class"))
        self.table = nn.Embedding(16, width) if self.how == "embedding" else None
        self.added = nn.Parameter(torch.randn(1, 16, width) * 0.02) if self.how == "parameter" else None
        self.first = nn.Parameter(torch.zeros(1, 1, width)) if self.how == "class" else None
        waves = torch.outer(torch.arange(16.0), 1e4 ** (-torch.arange(width) / width)).sin()
        self.register_buffer("waves", waves, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.shape[1]
        if self.table is not None:
            return x + self.table(torch.arange(tokens, device=x.device))
        if self.added is not None:
            return x + self.added[:, :tokens]
        if self.first is not None:
            return torch.cat([self.first.expand(len(x), -1, -1), x[:, 1:]], dim=1)
        return x + self.waves[:tokens]


class Recurrent(nn.Module):
    """Torch's layers and cells."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.how = draw.choice(("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "hand"))
        if self.how == "hand":
            self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        elif self.how.endswith("Cell"):
            self.cell = getattr(nn, self.how)(width, width)
        else:
            self.layer = getattr(nn, self.how)(width, width, num_layers=draw.randint(1, 2), batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.how in ("LSTM", "GRU", "RNN"):
            return self.layer(x)[0]
        state, states = x.new_zeros(len(x), x.shape[-1]), []
        cell = torch.zeros_like(state)
        for token in x.unbind(1):
            if self.how == "LSTMCell":
                state, cell = self.cell(token, (state, cell))
            elif self.how == "GRUCell":
                state = self.cell(token, state)
            else:
                state = torch.tanh(self.inner(token) + self.outer(state))
            states.append(state)
        return torch.stack(states, 1)


class Mixing(nn.Module):
    """Maps along tokens."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.how = draw.choice(("linear", "conv", "depthwise", "parameter"))
        self.map = nn.Linear(8, 8) if self.how == "linear" else None
        groups = width if self.how == "depthwise" else 1
        self.conv = (
            nn.Conv1d(width, width, 3, padding=1, groups=groups)
            if self.how in ("conv", "depthwise")
            else None
        )
        self.weight = (
            nn.Parameter(torch.eye(8) + 0.1 * torch.randn(8, 8)) if self.how == "parameter" else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.weight is not None:
            return torch.einsum("btc,ts->bsc", x, self.weight)
        columns = x.transpose(1, 2)
        result = self.map(columns) if self.map is not None else self.conv(columns)  # type: ignore[misc]
        return x + result.transpose(1, 2)


# Steps on pixels, shape (batch, channels, *sizes), of one to three dimensions.


class Conv(nn.Module):
    def __init__(self, draw: random.Random, dimensions: int, channels: int, out: int) -> None:
        super().__init__()
        kernel = draw.choice((1, 3, 5))
        divides = math.gcd(channels, out)
        groups = draw.choice([1, divides, *(g for g in (2, 4) if divides % g == 0)])
        transposed = "Transpose" if draw.random() < 0.2 else ""
        kind = getattr(nn, f"Conv{transposed}{dimensions}d")
        self.conv = kind(channels, out, kernel, padding=kernel // 2, groups=groups, bias=draw.random() < 0.5)
        self.norm = pixel_norm(draw, dimensions, out)
        self.act = activation(draw)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class FilterByHand(nn.Module):
    """Convolutions whose filters are parameters, standardized, or made of others."""

    mask: Tensor

    def __init__(self, draw: random.Random, dimensions: int, channels: int) -> None:
        super().__init__()
        self.how = draw.choice(("plain", "standardized", "masked", "separable", "mean"))
        self.conv = getattr(F, f"conv{dimensions}d")
        shape = (channels, channels, *[3] * dimensions)
        self.weight = nn.Parameter(torch.randn(shape) * 0.1)
        self.point = (
            nn.Parameter(torch.randn(channels, channels, *[1] * dimensions) * 0.1)
            if self.how == "separable"
            else None
        )
        self.bias = nn.Parameter(torch.zeros(channels)) if draw.random() < 0.5 else None
        self.register_buffer("mask", (torch.rand(shape) > 0.3).float())

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weight
        inner = tuple(range(1, weight.dim()))
        if self.how == "standardized":
            weight = (weight - weight.mean(inner, keepdim=True)) / (weight.std(inner, keepdim=True) + 1e-5)
            weight = weight / math.sqrt(weight[0].numel())
        elif self.how == "masked":
            weight = weight * self.mask
        elif self.how == "mean":
            weight = weight - weight.mean(inner, keepdim=True)
        x = self.conv(x, weight, self.bias, padding=1)
        return x if self.point is None else self.conv(x, self.point)


class Squeeze(nn.Module):
    """Channels that are weighed by their means."""

    def __init__(self, draw: random.Random, dimensions: int, channels: int) -> None:
        super().__init__()
        kind = getattr(nn, f"Conv{dimensions}d")
        self.conv = draw.random() < 0.5
        one = (lambda a, b: kind(a, b, 1)) if self.conv else nn.Linear
        self.net = nn.Sequential(one(channels, 4), nn.ReLU(inplace=True), one(4, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(2, x.dim()))
        if self.conv:
            return x * self.net(x.mean(axes, keepdim=True))
        return x * self.net(x.mean(axes)).reshape(*x.shape[:2], *[1] * len(axes))


class PixelResidual(nn.Module):
    def __init__(self, draw: random.Random, dimensions: int, channels: int) -> None:
        super().__init__()
        self.first, self.second = (
            Conv(draw, dimensions, channels, channels),
            Conv(draw, dimensions, channels, channels),
        )
        self.gamma = (
            nn.Parameter(torch.full((channels, *[1] * dimensions), 1e-2)) if draw.random() < 0.5 else None
        )
        self.dense = draw.random() < 0.3
        self.join = getattr(nn, f"Conv{dimensions}d")(2 * channels, channels, 1) if self.dense else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x))
        if self.join is not None:
            return self.join(torch.cat([x, y], dim=1))
        return x + (y if self.gamma is None else self.gamma * y)


class Resize(nn.Module):
    """Down and up again, as in a U-Net."""

    def __init__(self, draw: random.Random, dimensions: int, channels: int) -> None:
        super().__init__()
        conv = getattr(nn, f"Conv{dimensions}d")
        self.how = (
            draw.choice(("pool", "stride", "shuffle")) if dimensions == 2 else draw.choice(("pool", "stride"))
        )
        self.pool = getattr(F, f"{draw.choice(('max', 'avg'))}_pool{dimensions}d")
        self.down = conv(channels, 2 * channels, 3, stride=2 if self.how == "stride" else 1, padding=1)
        self.up = conv(2 * channels, 4 * channels if self.how == "shuffle" else channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(x if self.how == "stride" else self.pool(x, 2))
        y = self.up(F.relu(y))
        if self.how == "shuffle":
            y = F.pixel_shuffle(y, 2)
        if y.shape != x.shape:
            y = F.interpolate(y, size=x.shape[2:], mode="nearest")
        return x + y


ACTIVATIONS = (
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.ELU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Hardswish,
    nn.Mish,
    nn.Identity,
)


def activation(draw: random.Random) -> nn.Module:
    """One of torch's; some work in place."""
    kind = draw.choice(ACTIVATIONS)
    return kind(inplace=True) if kind in (nn.ReLU, nn.SiLU, nn.ELU) and draw.random() < 0.3 else kind()


def pixel_norm(draw: random.Random, dimensions: int, channels: int) -> nn.Module:
    """A normalization of pixels, or none."""
    return draw.choice(
        (
            lambda: getattr(nn, f"BatchNorm{dimensions}d")(channels, affine=draw.random() < 0.8),
            lambda: nn.GroupNorm(2, channels),
            lambda: getattr(nn, f"InstanceNorm{dimensions}d")(channels, affine=True),
            lambda: nn.Identity(),
        )
    )()


FEATURE_STEPS: tuple[Any, ...] = (
    Shared, Residual, Gated, Norm, Experts, LowRank, Hyper, Reparametrized, Scaled, Views, InPlace, Branching, Buffered,
    *FEATURE_HABITS,
)  # fmt: skip
TOKEN_STEPS: tuple[Any, ...] = (Attention, Positions, Recurrent, Mixing, *TOKEN_HABITS)
PIXEL_STEPS: tuple[Any, ...] = (FilterByHand, Squeeze, PixelResidual, Resize)


class RandomNetwork(nn.Module):
    """A network of one kind of input: an entry, steps, and one of many ways to give its results.

    Args:
        draw: Decides everything.
        kind: 'features', 'tokens', 'ids', or 'pixels1' to 'pixels3'.
    """

    def __init__(self, draw: random.Random, kind: str) -> None:
        super().__init__()
        self.kind, self.width = kind, draw.choice((8, 12, 16, 24))
        dimensions = int(kind[-1]) if kind.startswith("pixels") else 0
        self.names: list[str] = []
        self.table: nn.Embedding | None = None
        self.entry: nn.Module | None = None
        if kind == "ids":
            self.table = nn.Embedding(32, self.width, padding_idx=draw.choice((None, 0)))
        elif dimensions:
            self.entry = Conv(draw, dimensions, 3, self.width)
        else:
            self.entry = draw.choice((Linear, ByHand))(draw, 10, self.width)
        self.body = nn.ModuleList(self._step(draw, dimensions) for _ in range(draw.randint(2, 6)))
        if len(self.body) > 2 and draw.random() < 0.2:  # the same module at two places
            self.body.append(self.body[1])
            self.names.append(f"again {self.names[1]}")
        self.skips = draw.random() < 0.3
        self.pooled = draw.random() < 0.7 or bool(dimensions)
        self.head = self._head(draw)
        self.output = draw.choice(("tensor", "tuple", "dict", "named", "record", "list", "nested", "ordered"))
        if draw.random() < 0.1:  # that nothing uses
            self.spare = nn.Linear(3, 3)

    def _step(self, draw: random.Random, dimensions: int) -> nn.Module:
        if dimensions:
            step = draw.choice((Conv, *PIXEL_STEPS))
            self.names.append(step.__name__)
            extra = (self.width,) if step is Conv else ()
            return step(draw, dimensions, self.width, *extra)
        own = TOKEN_STEPS * 3 if self.kind in ("tokens", "ids") else ()
        step = draw.choice((Linear, ByHand, *FEATURE_STEPS, *own))
        return self._note(step(draw, self.width, *(self.width,) if step in (Linear, ByHand) else ()))

    def _note(self, step: nn.Module) -> nn.Module:
        how = getattr(step, "how", "")
        self.names.append(f"{type(step).__name__} {how}".rstrip())
        return step

    def _head(self, draw: random.Random) -> nn.Module:
        if self.table is not None and draw.random() < 0.5:
            head = nn.Linear(self.width, 32, bias=draw.random() < 0.5)
            if draw.random() < 0.6:
                head.weight = self.table.weight
                self.names.append("tied head")
            return head
        return draw.choice(
            (nn.Linear(self.width, 5), Linear(draw, self.width, 5), ByHand(draw, self.width, 5))
        )

    def forward(self, x: Tensor) -> Any:
        h = self.table(x) if self.table is not None else self.entry(x)  # type: ignore[misc]
        first = h
        for step in self.body:
            h = step(h)
        if self.skips:
            h = h + first
        if self.pooled and h.dim() > 2:
            h = h.flatten(2).mean(2) if self.kind.startswith("pixels") else h.mean(1)
        result = self.head(h)
        if self.output == "tensor":
            return result
        kinds: dict[str, Callable[[], Any]] = {
            "tuple": lambda: (result, h),
            "list": lambda: [result, h],
            "dict": lambda: {"result": result, "hidden": h},
            "ordered": lambda: OrderedDict(result=result, hidden=h),
            "named": lambda: Named(result, h),
            "record": lambda: Record(result, h),
            "nested": lambda: {"all": [(result,), {"hidden": h}], "number": 3, "none": None},
        }
        return kinds[self.output]()


KINDS = ("features", "tokens", "ids", "pixels1", "pixels2", "pixels2", "pixels3")


def network(seed: int) -> Network:
    """Draw a network; the same seed gives the same one, with the same values."""
    draw = random.Random(seed)
    kind = draw.choice(KINDS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = RandomNetwork(draw, kind)
        inputs = _inputs(kind)
    model.train(draw.random() < 0.5)
    return Network(seed, model, inputs, (kind, *model.names, model.output))


def _inputs(kind: str) -> tuple[Tensor, ...]:
    if kind == "ids":
        return (torch.randint(32, (BATCH, 8)),)
    if kind == "tokens":
        return (torch.randn(BATCH, 8, 10),)
    if kind == "features":
        return (torch.randn(4, 10),)
    return (torch.randn(BATCH, 3, *[8] * int(kind[-1])),)


def tensors(value: Any) -> list[Tensor]:
    """All tensors in an output, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for entry in value.values() for tensor in tensors(entry)]
    if isinstance(value, list | tuple):
        return [tensor for entry in value for tensor in tensors(entry)]
    return tensors(vars(value)) if isinstance(value, Record) else []


def complaints(seed: int, net: GHN) -> list[str]:
    """Trace and initialize one network in the two ways there are, and tell what is wrong; empty if nothing is."""
    problems: list[str] = []
    plain, twin = network(seed), network(seed)
    expected = _run(plain)
    graph = _trace(twin, problems)
    if not all(map(_equal, expected, _run(twin))):
        problems.append("the forward pass gives something else after the trace")
    everything = sorted(name for name, _ in plain.model.named_parameters(remove_duplicate=False))
    if sorted(name for spec in graph.params for name in spec.names) != everything:
        problems.append("the graph has other parameters than the model")
    for learned in (True, False):
        sample = network(seed)
        before = {name: value.clone() for name, value in sample.model.state_dict().items()}
        report = net.init_(sample.model, sample.inputs, learned=learned)
        values = dict(sample.model.named_parameters(remove_duplicate=False))
        if sorted(entry.name for entry in report.parameters) != everything:
            problems.append("the report doesn't hold every parameter once")
        if not all(torch.isfinite(value).all() for value in values.values()):
            problems.append("a parameter is not finite")
        for entry in report.parameters:
            if entry.fate == "kept" and not torch.equal(values[entry.name], before[entry.name]):
                problems.append(f"{entry.name} is reported as kept, and was changed")
        outputs = _run(sample)
        if not all(torch.isfinite(output).all() for output in outputs):
            problems.append("an output is not finite")
        torch.stack([output.square().mean() for output in outputs]).sum().backward()
        gradients = [value.grad for value in sample.model.parameters() if value.grad is not None]
        if not gradients or not all(torch.isfinite(gradient).all() for gradient in gradients):
            problems.append("there is no gradient, or one that is not finite")
    return problems


def _trace(sample: Network, problems: list[str]) -> ComputationGraph:
    """Trace a network, and tell what that has changed."""
    model = sample.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = [id(value) for value in (*model.parameters(), *model.buffers())]
    state, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    graph = ghn.trace(model, sample.inputs)
    if not torch.equal(torch.get_rng_state(), state):
        problems.append("the trace drew random numbers")
    if [module.training for module in model.modules()] != modes:
        problems.append("the trace changed a mode")
    if not all(map(_equal, model.state_dict().values(), before.values())):
        problems.append("the trace changed a value")
    if [id(value) for value in (*model.parameters(), *model.buffers())] != ids:
        problems.append("the trace replaced a parameter or buffer")
    return graph


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other)


def _run(sample: Network) -> list[Tensor]:
    """Outputs of floating-point numbers, with dropout's random numbers always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(sample.seed)
        return [tensor for tensor in tensors(sample.model(*sample.inputs)) if tensor.is_floating_point()]
