"""Steps of networks that only some people write: what torch has beside layers, and odd ways to hold a parameter."""

import math
import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Held(nn.Module):
    """Parameters in a list, a dictionary, by name, under a property, or of another module."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.how = draw.choice(
            ("list", "dict", "registered", "property", "borrowed", "noncontiguous", "indexed")
        )
        matrix = nn.Parameter(torch.randn(width, width) / math.sqrt(width))
        if self.how == "list":
            self.held: Any = nn.ParameterList([matrix, torch.zeros(width)])
        elif self.how == "dict":
            self.held = nn.ParameterDict({"w": matrix, "b": nn.Parameter(torch.zeros(width))})
        elif self.how == "noncontiguous":
            self.held = nn.Parameter(torch.randn(width, width).t() / math.sqrt(width))
        elif self.how == "indexed":
            self.held = nn.Parameter(torch.randn(width, 3, width) / math.sqrt(width))
        elif self.how == "borrowed":
            self.held = nn.Linear(width, width)
        else:
            self.register_parameter("held", matrix)
            self.register_parameter("nothing", None)

    @property
    def weight(self) -> Tensor:
        """Weight of the map."""
        matrix: Tensor = self.held
        return matrix * 1.0

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "list":
            return F.linear(x, self.held[0], self.held[1])
        if self.how == "dict":
            return x @ self.held["w"] + self.held["b"]
        if self.how == "property":
            return F.linear(x, self.weight)
        if self.how == "borrowed":
            return F.linear(x, self.held.weight) + x @ self.held.weight + self.held.bias
        if self.how == "indexed":
            return F.linear(x, self.held[:, 1]) + F.linear(x, self.held[:, torch.tensor([0, 2])].sum(1))
        return F.linear(x, self.held)


class Computed(nn.Module):
    """A matrix that is made of parameters."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.how = draw.choice(
            (
                "outer",
                "kron",
                "block",
                "triangular",
                "symmetric",
                "skew",
                "exponential",
                "circulant",
                "cat",
                "softmax",
                "sign",
                "repeat",
            )
        )
        self.matrix = nn.Parameter(torch.randn(width, width) / math.sqrt(width))
        half = width // 2
        self.small, self.other = (
            nn.Parameter(torch.randn(half, half) * 0.3),
            nn.Parameter(torch.randn(2, 2) * 0.5),
        )
        self.vector = nn.Parameter(torch.randn(width))

    def weight(self) -> Tensor:
        """Weight of the map, shape ``(width, width)``."""
        w = self.matrix
        ways = {
            "outer": lambda: torch.outer(self.vector, w[0]),
            "kron": lambda: torch.kron(self.other, self.small),
            "block": lambda: torch.block_diag(self.small, self.small.t()),
            "triangular": lambda: torch.tril(w) + torch.eye(len(w)),
            "symmetric": lambda: (w + w.t()) / 2,
            "skew": lambda: w.triu(1) - w.triu(1).t(),
            "exponential": lambda: torch.linalg.matrix_exp(w.triu(1) - w.triu(1).t()),
            "circulant": lambda: torch.stack([self.vector.roll(i) for i in range(len(w))]) / len(w),
            "cat": lambda: torch.cat([w[: len(w) // 2], w[len(w) // 2 :] * self.vector], dim=0),
            "softmax": lambda: w.softmax(-1),
            "sign": lambda: w.sign().detach() * w.abs().mean() + (w - w.detach()),
            "repeat": lambda: self.small.repeat(2, 2),
        }
        return ways[self.how]()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight())


class Routed(nn.Module):
    """Experts by the largest score, as sparse mixtures have them."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.router, self.top = nn.Linear(width, 3), draw.randint(1, 2)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(3))
        self.how = draw.choice(("where", "mask", "loop"))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        weights, choices = self.router(flat).softmax(-1).topk(self.top, dim=-1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            if self.how == "where":
                rows, slots = torch.where(choices == number)
                out.index_add_(0, rows, expert(flat[rows]) * weights[rows, slots, None])
            elif self.how == "mask":
                share = (weights * (choices == number)).sum(-1, keepdim=True)
                out = out + share * expert(flat)
            else:
                rows = (choices == number).any(-1).nonzero().flatten()
                if rows.numel() > 0:
                    out[rows] = out[rows] + expert(flat[rows])
        return out.view_as(x)


class Functional(nn.Module):
    """Functions of torch that take parameters themselves."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.how = draw.choice(
            (
                "bilinear",
                "prelu",
                "cdist",
                "lookup",
                "baddbmm",
                "tensordot",
                "fft",
                "cumsum",
                "group_norm",
                "mv",
                "conv",
            )
        )
        self.a = nn.Parameter(torch.randn(width, width) / math.sqrt(width))
        self.b = nn.Parameter(torch.zeros(width))
        self.c = nn.Parameter(torch.randn(width, 4, width) * 0.1)
        self.real = nn.Parameter(torch.randn(width // 2 + 1, 2) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        ways = {
            "bilinear": lambda: F.bilinear(
                flat, flat[:, :4].contiguous(), self.c.transpose(1, 2).contiguous(), self.b
            ),
            "prelu": lambda: F.prelu(F.linear(flat, self.a), self.b),
            "cdist": lambda: torch.exp(-torch.cdist(flat, self.a)),
            "lookup": lambda: flat + F.embedding(torch.arange(len(flat)) % len(self.a), self.a),
            "baddbmm": lambda: torch.baddbmm(self.b[None, None], flat[None], self.a[None])[0],
            "tensordot": lambda: torch.tensordot(flat, self.c, dims=([1], [0])).mean(1),
            "fft": lambda: torch.fft.irfft(
                torch.fft.rfft(flat) * torch.view_as_complex(self.real), n=flat.shape[-1]
            ),
            "cumsum": lambda: flat * self.b.softmax(0).cumsum(0).flip(0),
            "group_norm": lambda: F.group_norm(flat, 2, self.b + 1, self.b),
            "mv": lambda: flat * torch.mv(self.a, self.b + 1),
            "conv": lambda: F.conv1d(flat[:, None], self.a[:1, None, :3], padding=1)[:, 0],
        }
        return ways[self.how]().reshape(x.shape)


class Double(torch.autograd.Function):
    """Somebody's own backward pass."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor) -> Tensor:
        context.save_for_backward(x, weight)
        return 2 * x * weight

    @staticmethod
    def backward(context: Any, *gradients: Any) -> tuple[Tensor, Tensor]:
        x, weight = context.saved_tensors
        (gradient,) = gradients
        return 2 * gradient * weight, (2 * gradient * x).reshape(-1, len(weight)).sum(0)


class Machinery(nn.Module):
    """What torch does around a forward pass."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.inner, self.gain = (
            nn.Sequential(nn.Linear(width, width), nn.Tanh()),
            nn.Parameter(torch.ones(width)),
        )
        self.how = draw.choice(
            (
                "checkpoint",
                "functional_call",
                "autograd",
                "vmap",
                "no_grad",
                "hook",
                "pre_hook",
                "autocast",
                "double",
                "try",
                "generator",
            )
        )
        if self.how == "hook":
            self.inner.register_forward_hook(lambda module, inputs, output: output * 0.5)
        if self.how == "pre_hook":
            self.inner.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "checkpoint":
            result: Tensor = checkpoint(self.inner, x, use_reentrant=False)
            return result * self.gain
        if self.how == "functional_call":
            own = {name: value * 1.5 for name, value in self.inner.named_parameters()}
            output: Tensor = torch.func.functional_call(self.inner, own, (x,))
            return output
        if self.how == "autograd":
            double: Tensor = Double.apply(x, self.gain)
            return self.inner(double)
        if self.how == "vmap":
            rows: Tensor = torch.vmap(self.inner)(x)
            return rows
        if self.how == "no_grad":
            with torch.no_grad():
                scale = x.abs().amax(-1, keepdim=True).clamp_min(1e-3)
            return self.inner(x / scale)
        if self.how == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = self.inner(x)
            return y.float() * self.gain
        if self.how == "double":
            first = self.inner[0]
            assert isinstance(first, nn.Linear)
            return F.linear(x.double(), first.weight.double()).float()
        if self.how == "try":
            try:
                return self.inner(x).view(len(x), -1, 7, 7)
            except RuntimeError:
                return self.inner(x)
        if self.how == "generator":
            noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
            return self.inner(x + 0.1 * noise) * self.gain
        return self.inner(x)


class Lengths(nn.Module):
    """Python numbers that are read off tensors, and loops that depend on them."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.map, self.how = (
            nn.Linear(width, width),
            draw.choice(("item", "while", "sort", "unique", "len", "any")),
        )
        self.register_buffer("times", torch.tensor(draw.randint(1, 3)))
        self.times: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "item":
            for _ in range(int(self.times.item())):
                x = torch.tanh(self.map(x))
            return x
        if self.how == "while":
            count = 0
            while x.norm() > 1e-3 and count < 2:
                x, count = self.map(x), count + 1
            return x
        if self.how == "sort":
            values, order = x.sort(dim=-1)
            return self.map(values).gather(-1, order)
        if self.how == "unique":
            kinds = torch.unique((x > 0).sum(-1))
            return self.map(x) * (1 + 0.1 * len(kinds))
        if self.how == "any":
            return self.map(x) if bool((x > -1e9).all()) else x
        return self.map(x) / len(x)


class Odd(nn.Module):
    """Parameters of other types and sizes: none at all, one number, whole numbers, half precision, fixed ones."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.empty, self.number = nn.Parameter(torch.zeros(0, width)), nn.Parameter(torch.tensor(1.0))
        self.whole = nn.Parameter(torch.arange(width) % 3, requires_grad=False)
        self.short = nn.Parameter(
            torch.zeros(width, dtype=draw.choice((torch.float16, torch.bfloat16, torch.float64)))
        )
        self.map, self.frozen = nn.Linear(width, width), nn.Linear(width, width).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.map(x) * self.number + self.short.to(x.dtype)
        y = torch.cat([y.reshape(-1, y.shape[-1]), self.empty], dim=0)[: y.numel() // y.shape[-1]].reshape(
            x.shape
        )
        return y + self.frozen(x) * (self.whole > 0)


class Cell(nn.Module):
    """A cycle: a module that knows its owner, and one that is called through it."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width)
        self.owner = [self]  # outside of the module tree
        self.steps: tuple[Callable[[Tensor], Tensor], ...] = (
            self.map,
            torch.tanh,
            lambda x: x * 0.5,
            self.again,
        )

    def again(self, x: Tensor) -> Tensor:
        """Use the map once more."""
        return self.owner[0].map(x)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


class Layers(nn.Module):
    """Layers of torch that are models of their own."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.how = draw.choice(("encoder", "decoder", "transformer"))
        options: dict[str, Any] = {
            "nhead": 2,
            "dim_feedforward": 2 * width,
            "batch_first": True,
            "norm_first": draw.random() < 0.5,
        }
        if self.how == "encoder":
            self.layer: nn.Module = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(width, **options), 2, enable_nested_tensor=False
            )
        elif self.how == "decoder":
            self.layer = nn.TransformerDecoderLayer(width, **options)
        else:
            self.layer = nn.Transformer(width, num_encoder_layers=1, num_decoder_layers=1, **options)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "encoder":
            return self.layer(x)
        return self.layer(x, x)


FEATURE_HABITS: tuple[Any, ...] = (Held, Computed, Routed, Functional, Machinery, Lengths, Odd, Cell)
TOKEN_HABITS: tuple[Any, ...] = (Layers,)
