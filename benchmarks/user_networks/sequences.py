"""Networks of sequences: recurrent, convolutional, attentive, state spaces."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from user_networks.data import generator, split_digits, text, waves
from user_networks.tabular import classification, mlp, regression
from user_networks.task import Family, Parts, Task, split

network = Family("sequences", (1e-3, 3e-3, 1e-2))


def next_token(model: nn.Module, x: Tensor) -> Tensor:
    """Cross entropy of each token given those before it."""
    return F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())


class Recurrent(nn.Module):
    """Table, recurrent layers, linear map to logits."""

    def __init__(self, kind: type[nn.RNNBase], tokens: int, width: int = 64, layers: int = 1) -> None:
        super().__init__()
        self.table = nn.Embedding(tokens, width)
        self.layers = kind(width, width, layers, batch_first=True)  # type: ignore[arg-type]
        self.head = nn.Linear(width, tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(batch, length, tokens)``."""
        return self.head(self.layers(self.table(x))[0])


@network
def lstm_characters() -> Task:
    """LSTM language model of Python's source, by character."""
    train, test = text(33)
    test = (test[0][:128],)
    return Task(
        build=lambda: Recurrent(nn.LSTM, 128), loss=next_token, train=train, test=test, size=32, stacks=False
    )


class Forecaster(nn.Module):
    """Recurrent layers of numbers, of whose last state a linear map makes the next numbers."""

    def __init__(self, kind: type[nn.RNNBase], layers: int = 1) -> None:
        super().__init__()
        self.layers = kind(1, 32, layers, batch_first=True)  # type: ignore[arg-type]
        self.head = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Of shape ``(batch, length)``, the next eight numbers."""
        return self.head(self.layers(x[:, :, None])[0][:, -1])


@network
def gru_forecast() -> Task:
    """Two layers of a GRU that continue sums of sines."""
    series = waves(2048, 32)
    train, test = split(series[:, :24], series[:, 24:])
    return Task(
        build=lambda: Forecaster(nn.GRU, 2), loss=regression, train=train, test=test, steps=150, stacks=False
    )


@network
def rnn_forecast() -> Task:
    """Tanh RNN that continues sums of sines."""
    series = waves(2048, 32)
    train, test = split(series[:, :24], series[:, 24:])
    return Task(build=lambda: Forecaster(nn.RNN), loss=regression, train=train, test=test, stacks=False)


@network
def gru_recall() -> Task:
    """GRU that repeats eight tokens after having read them."""
    x = torch.randint(1, 9, (2048, 8), generator=generator())
    train, test = split(torch.cat([x, x], dim=1))

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        prompt = torch.cat([x[:, :8], torch.zeros_like(x[:, 8:])], dim=1)
        return F.cross_entropy(model(prompt)[:, 8:].flatten(0, 1), x[:, 8:].flatten())

    return Task(
        build=lambda: Recurrent(nn.GRU, 9), loss=loss, train=train, test=test, steps=250, stacks=False
    )


class Translator(nn.Module):
    """Recurrent encoder and decoder, the latter with additive attention on the former."""

    def __init__(self, tokens: int = 12, width: int = 32) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(tokens, width), nn.Embedding(tokens, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.decoder = nn.GRUCell(2 * width, width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.score, self.head = nn.Linear(width, 1), nn.Linear(2 * width, tokens)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits of each target token given those before it."""
        states, last = self.encoder(self.source(source))
        hidden, keys, logits = last[0], self.key(states), []
        for token in self.target(target).unbind(1):
            scores = self.score(torch.tanh(self.query(hidden)[:, None] + keys))
            context = (scores.softmax(1) * states).sum(1)
            hidden = self.decoder(torch.cat([token, context], dim=1), hidden)
            logits.append(self.head(torch.cat([hidden, context], dim=1)))
        return torch.stack(logits, dim=1)


@network
def translator_reverse() -> Task:
    """Sequence to sequence with additive attention, which reverses eight tokens."""
    x = torch.randint(1, 12, (2048, 8), generator=generator())
    reverse = x.flip(1)
    prefix = torch.cat([torch.zeros(len(x), 1, dtype=torch.long), reverse[:, :-1]], dim=1)
    train, test = split(x, prefix, reverse)
    return Task(
        build=Translator,
        loss=lambda model, x, s, y: F.cross_entropy(model(x, s).flatten(0, 1), y.flatten()),
        parts=lambda model, x, s, y: [(model, (x, s))],
        train=train,
        test=test,
        steps=250,
        size=32,
        stacks=False,
    )


class Causal(nn.Module):
    """Dilated causal convolutions with residual branches and without normalization."""

    def __init__(self, width: int = 32, layers: int = 4, normed: bool = False) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(128, width), nn.Linear(width, 128)
        convolutions = [nn.Conv1d(width, width, 3, dilation=2**layer) for layer in range(layers)]
        blocks = (
            [nn.utils.parametrizations.weight_norm(layer) for layer in convolutions]
            if normed
            else convolutions
        )
        self.layers = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(batch, length, 128)``."""
        hidden = self.table(x).mT
        for number, layer in enumerate(self.layers):
            hidden = hidden + F.relu(layer(F.pad(hidden, (2 * 2**number, 0))))
        return self.head(hidden.mT)


@network
def temporal_convolutions() -> Task:
    """Dilated causal convolutions without normalization on characters."""
    train, test = text(33)
    return Task(build=Causal, loss=next_token, train=train, test=(test[0][:128],), size=32)


@network
def temporal_weight_norm() -> Task:
    """The same with weight normalization."""
    train, test = text(33)
    return Task(
        build=lambda: Causal(normed=True), loss=next_token, train=train, test=(test[0][:128],), size=32
    )


class StateSpace(nn.Module):
    """Diagonal linear recurrences of which each channel has several (S4D-real), computed as a convolution."""

    def __init__(self, width: int = 32, states: int = 8) -> None:
        super().__init__()
        self.log_decay = nn.Parameter(torch.arange(1, states + 1).float().log().repeat(width, 1))
        self.log_step = nn.Parameter(torch.rand(width, 1) * 3 - 4)
        self.weight = nn.Parameter(torch.randn(width, states) / states**0.5)
        self.skip = nn.Parameter(torch.ones(width))
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences of shape ``(batch, length, width)``."""
        length = x.shape[1]
        rate = -self.log_decay.exp() * self.log_step.exp()
        kernel = (self.weight[..., None] * (rate[..., None] * torch.arange(length)).exp()).sum(1)
        size = 2 * length
        spectrum = torch.fft.rfft(x.mT, size) * torch.fft.rfft(kernel, size)
        output = torch.fft.irfft(spectrum, size)[..., :length].mT
        return x + self.mix(F.gelu(output + self.skip * x))


class StateSpaceForecaster(nn.Module):
    """Two layers of state spaces between linear maps."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(1, 32), StateSpace(), StateSpace(), nn.Linear(32, 8))

    def forward(self, x: Tensor) -> Tensor:
        """Of shape ``(batch, length)``, the next eight numbers."""
        return self.body(x[:, :, None])[:, -1]


@network
def state_space() -> Task:
    """State-space model that continues sums of sines."""
    series = waves(2048, 32)
    train, test = split(series[:, :24], series[:, 24:])
    return Task(build=StateSpaceForecaster, loss=regression, train=train, test=test)


class Attention(nn.Module):
    """Causal or full attention and an MLP on a residual stream, with normalization or without."""

    def __init__(self, width: int, heads: int, causal: bool, norms: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.in_projection, self.out_projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = mlp(width, 2 * width, width, activation=nn.GELU)
        self.first = nn.LayerNorm(width) if norms else nn.Identity()
        self.second = nn.LayerNorm(width) if norms else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Sequences of shape ``(batch, length, width)``."""
        batch, length, width = x.shape
        projections = self.in_projection(self.first(x)).view(batch, length, 3, self.heads, -1)
        query, key, value = projections.permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        x = x + self.out_projection(heads.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.second(x))


class Language(nn.Module):
    """GPT without its normalizations."""

    def __init__(self, width: int = 48, layers: int = 2, length: int = 32) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(128, width), nn.Linear(width, 128, bias=False)
        self.positions = nn.Parameter(0.02 * torch.randn(1, length, width))
        self.layers = nn.Sequential(*[Attention(width, 4, causal=True, norms=False) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(batch, length, 128)``."""
        return self.head(self.layers(self.table(x) + self.positions))


@network
def gpt_plain() -> Task:
    """GPT of two layers without normalization on characters."""
    train, test = text(33)
    return Task(
        build=Language,
        loss=next_token,
        parts=lambda model, x: [(model, (x[:, :-1],))],
        train=train,
        test=(test[0][:128],),
        size=32,
        steps=150,
    )


class Patches(nn.Module):
    """Vision transformer of patches of 2 × 2 pixels."""

    def __init__(self, norms: bool, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.layers = nn.Sequential(*[Attention(width, 4, False, norms) for _ in range(layers)])
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images."""
        tokens = self.patches(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], dim=1)
        return self.head(self.layers(tokens + self.positions)[:, 0])


@network
def vit_plain() -> Task:
    """Vision transformer of two layers without normalization on digits."""
    train, test = split_digits()
    return Task(build=lambda: Patches(norms=False), loss=classification, train=train, test=test, size=32)


@network
def vit_digits() -> Task:
    """Vision transformer of two layers with layer normalization on digits."""
    train, test = split_digits()
    return Task(build=lambda: Patches(norms=True), loss=classification, train=train, test=test, size=32)


def sinusoids(length: int, width: int) -> Tensor:
    """Fixed positions, shape ``(length, width)``."""
    angles = torch.arange(length)[:, None] * torch.exp(-math.log(1e4) * torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


class Encoder(nn.Module):
    """torch's own transformer encoder over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Linear(8, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)
        self.register_buffer("positions", sinusoids(8, 32))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images."""
        return self.head(self.encoder(self.rows(x[:, 0]) + self.positions).mean(1))


@network
def transformer_encoder() -> Task:
    """torch.nn.TransformerEncoder over the rows of digits."""
    train, test = split_digits()
    return Task(build=Encoder, loss=classification, train=train, test=test, size=32, steps=150)


class Difference(nn.Module):
    """One encoder for both images of a pair, and the distance of what it makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 16)),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances, shape ``(batch,)``."""
        return (self.encoder(first) - self.encoder(second)).norm(dim=1)


@network
def siamese() -> Task:
    """Siamese convolutional network, contrastive loss of pairs of digits."""

    def pairs(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        order = torch.randperm(len(x), generator=generator(1))
        same = torch.cat([torch.roll(torch.argsort(y, stable=True), 1), order])
        left = torch.cat([torch.argsort(y, stable=True), torch.arange(len(x))])
        return x[left], x[same], (y[left] == y[same]).float()

    def loss(model: nn.Module, first: Tensor, second: Tensor, same: Tensor) -> Tensor:
        distance = model(first, second)
        return (same * distance.square() + (1 - same) * F.relu(1 - distance).square()).mean()

    def parts(model: nn.Module, first: Tensor, second: Tensor, same: Tensor) -> Parts:
        return [(model, (first, second))]

    train, test = split_digits()
    return Task(build=Difference, loss=loss, parts=parts, train=pairs(*train), test=pairs(*test), steps=150)
