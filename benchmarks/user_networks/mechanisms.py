"""Networks that are built around one mechanism: gates, masks, routing, conditioning, memory, unrolled algorithms."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from user_networks.data import digits, friedman, generator, split_digits, text, waves
from user_networks.sequences import next_token
from user_networks.tabular import classification, mlp, regression
from user_networks.task import Batch, Family, Task, split

network = Family("mechanisms", (1e-3, 3e-3, 1e-2))


class Highway(nn.Module):
    """A gate mixes a layer's input and its result; its bias starts negative, so that most passes through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape ``(batch, width)``."""
        gate = torch.sigmoid(self.gate(x))
        return gate * F.relu(self.transform(x)) + (1 - gate) * x


@network
def highway_digits() -> Task:
    """Six highway layers on flat digits."""
    train, test = split_digits(flat=True)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(64, 48), nn.ReLU(), *[Highway(48) for _ in range(6)], nn.Linear(48, 10)
        )

    return Task(build=build, loss=classification, train=train, test=test)


class MaskedLinear(nn.Linear):
    """Linear map of which a mask leaves some weights."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(batch, outputs)``."""
        return F.linear(x, self.weight * self.mask, self.bias)


@network
def masked_autoencoder() -> Task:
    """MADE: masks let each pixel depend on those before it, on black and white digits."""
    train, test = split((digits()[0].flatten(1) > 0.5).float())
    g = generator()

    def build() -> nn.Module:
        order, hidden = torch.arange(64), torch.randint(63, (128,), generator=g.manual_seed(0))
        first = (hidden[:, None] >= order).float()
        between = (hidden[:, None] >= hidden).float()
        last = (order[:, None] > hidden).float()
        return nn.Sequential(
            *(MaskedLinear(first), nn.ReLU(), MaskedLinear(between), nn.ReLU(), MaskedLinear(last))
        )

    return Task(
        build=build,
        loss=lambda model, x: F.binary_cross_entropy_with_logits(model(x), x),
        train=train,
        test=test,
    )


class PointNet(nn.Module):
    """Pointwise layers, the maximum over points, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Sequential(
            *(nn.Conv1d(3, 32, 1), nn.ReLU(), nn.Conv1d(32, 64, 1), nn.ReLU(), nn.Conv1d(64, 128, 1))
        )
        self.head = mlp(128, 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Points of shape ``(batch, 3, points)``."""
        return self.head(self.points(x).amax(2))


@network
def point_net() -> Task:
    """PointNet without normalization on the darkest pixels of digits."""
    x, y = digits()
    values, places = x.flatten(1).topk(24)
    cloud = torch.stack([(places // 8) / 3.5 - 1, (places % 8) / 3.5 - 1, values], 1)
    train, test = split(cloud, y)
    return Task(build=PointNet, loss=classification, train=train, test=test)


class CrossNetwork(nn.Module):
    """Deep and cross network: products of features beside an MLP."""

    def __init__(self, width: int = 10, layers: int = 3) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(width) / width**0.5) for _ in range(layers))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in range(layers))
        self.deep = mlp(width, 64, 64)
        self.head = nn.Linear(width + 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(batch, 1)``."""
        crossed = x
        for weight, bias in zip(self.weights, self.biases, strict=True):
            crossed = x * (crossed @ weight)[:, None] + bias + crossed
        return self.head(torch.cat([crossed, F.relu(self.deep(x))], 1))


@network
def cross_network() -> Task:
    """Deep and cross network, generated regression."""
    train, test = split(*friedman())
    return Task(build=CrossNetwork, loss=regression, train=train, test=test)


class SoftTree(nn.Module):
    """Trees whose inner nodes send an example left or right by a sigmoid."""

    def __init__(self, inputs: int, outputs: int, depth: int = 4, trees: int = 4) -> None:
        super().__init__()
        self.depth = depth
        self.nodes = nn.ModuleList(nn.Linear(inputs, 2**depth - 1) for _ in range(trees))
        self.leaves = nn.Parameter(torch.randn(trees, 2**depth, outputs) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(batch, outputs)``."""
        logits = x.new_zeros(())
        for nodes, leaves in zip(self.nodes, self.leaves, strict=True):
            right = torch.sigmoid(nodes(x))
            reach = torch.ones_like(right[:, :1])
            for level in range(self.depth):
                branch = right[:, 2**level - 1 : 2 ** (level + 1) - 1]
                reach = torch.stack([reach * (1 - branch), reach * branch], 2).flatten(1)
            logits = logits + reach @ leaves
        return logits


@network
def soft_trees() -> Task:
    """Four differentiable decision trees on flat digits."""
    train, test = split_digits(flat=True)
    return Task(build=lambda: SoftTree(64, 10), loss=classification, train=train, test=test)


class Pool(nn.Module):
    """Attention of learned vectors, or of the elements, to the elements, and an MLP, each with a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x`` asks, ``y`` answers."""
        q, k, v = (t.unflatten(2, (4, -1)).transpose(1, 2) for t in (self.q(x), self.k(y), self.v(y)))
        scores = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        x = x + (scores @ v).transpose(1, 2).flatten(2)
        return x + F.relu(self.out(x))


class SetTransformer(nn.Module):
    """Elements talk through a few learned vectors, and one more gathers them."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(1, width)
        self.inducing = nn.Parameter(torch.empty(1, 8, width))
        self.seed = nn.Parameter(torch.empty(1, 1, width))
        nn.init.xavier_uniform_(self.inducing)
        nn.init.xavier_uniform_(self.seed)
        self.gather, self.spread, self.pool = Pool(width), Pool(width), Pool(width)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Sets of numbers, shape ``(batch, elements)``."""
        x = self.embed(x[:, :, None])
        x = self.spread(x, self.gather(self.inducing.expand(len(x), -1, -1), x))
        return self.head(self.pool(self.seed.expand(len(x), -1, -1), x)[:, 0])


@network
def set_transformer() -> Task:
    """Set transformer without normalization: largest element and spread of a set."""
    x = torch.randn(2048, 16, generator=generator())
    train, test = split(x, torch.stack([x.amax(1) - 1.8, x.std(1) * 2 - 2], 1))
    return Task(build=SetTransformer, loss=regression, train=train, test=test)


class NeuralProcess(nn.Module):
    """Conditional neural process: an MLP sees a point and the mean of what another made of known points."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(2, 64, 64, 64), mlp(65, 64, 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Curves of shape ``(batch, 32)`` of which every fourth point is known; all points."""
        at = torch.linspace(-1, 1, x.shape[1], device=x.device).expand_as(x)
        known = torch.stack([at[:, ::4], x[:, ::4]], 2)
        context = self.encoder(known).mean(1, keepdim=True).expand(-1, x.shape[1], -1)
        return self.decoder(torch.cat([at[:, :, None], context], 2))[:, :, 0]


@network
def neural_process() -> Task:
    """Conditional neural process on slow sines."""
    g = generator()
    phase, frequency = 6.3 * torch.rand(2048, 1, generator=g), 1 + 2 * torch.rand(2048, 1, generator=g)
    train, test = split((frequency * torch.linspace(-1, 1, 32) + phase).sin())
    return Task(
        build=NeuralProcess, loss=lambda model, x: F.mse_loss(model(x), x), train=train, test=test, steps=300
    )


class ConvLSTM(nn.Module):
    """LSTM whose maps are convolutions, and one that makes the next image."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.width = width
        self.gates = nn.Conv2d(1 + width, 4 * width, 3, padding=1)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images of shape ``(batch, time, 8, 8)``; the one after each."""
        hidden = cell = torch.zeros(len(x), self.width, *x.shape[2:], device=x.device)
        images = []
        for image in x.unbind(1):
            i, f, o, g = self.gates(torch.cat([image[:, None], hidden], 1)).chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
            images.append(self.head(hidden))
        return torch.cat(images, 1)


@network
def conv_lstm() -> Task:
    """Convolutional LSTM that foresees digits on the move."""
    x, _ = digits()
    shifts = [1 + number % 3 for number in range(len(x))]
    clips = torch.stack(
        [
            torch.stack([image[0].roll(shift * time, 1) for time in range(5)])
            for image, shift in zip(x[:800], shifts, strict=False)
        ]
    )
    train, test = split(clips)
    return Task(
        build=ConvLSTM,
        loss=lambda model, clip: F.mse_loss(model(clip[:, :-1]), clip[:, 1:]),
        train=train,
        test=test,
        size=32,
        steps=120,
    )


class GatedConvolutions(nn.Module):
    """Table, causal convolutions with gated linear units and residuals, logits."""

    def __init__(self, tokens: int = 128, width: int = 48, layers: int = 4) -> None:
        super().__init__()
        self.table = nn.Embedding(tokens, width)
        self.layers = nn.ModuleList(nn.Conv1d(width, 2 * width, 4) for _ in range(layers))
        self.head = nn.Linear(width, tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(batch, length, tokens)``."""
        x = self.table(x).mT
        for layer in self.layers:
            x = x + F.glu(layer(F.pad(x, (3, 0))), dim=1)
        return self.head(x.mT)


@network
def gated_convolutions() -> Task:
    """Language model of gated convolutions without normalization, by character."""
    train, test = text(33)
    return Task(build=GatedConvolutions, loss=next_token, train=train, test=(test[0][:128],), size=32)


class SpatialTransformer(nn.Module):
    """A network turns the image before another sees it; its last layer starts as the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(288, 32),
            nn.ReLU(),
        )
        self.theta = nn.Linear(32, 6)
        nn.init.zeros_(self.theta.weight)
        self.theta.bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), mlp(576, 64, 10))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images."""
        theta = self.theta(self.where(x)).view(-1, 2, 3)
        return self.body(F.grid_sample(x, F.affine_grid(theta, list(x.shape), False), align_corners=False))


@network
def spatial_transformer() -> Task:
    """Spatial transformer and a plain CNN on digits at random places."""
    x, y = digits()
    g = generator()
    places = torch.randint(5, (len(x), 2), generator=g).tolist()
    images = torch.stack([F.pad(i, (c, 4 - c, r, 4 - r)) for i, (r, c) in zip(x, places, strict=True)])
    train, test = split(images, y)
    return Task(build=SpatialTransformer, loss=classification, train=train, test=test)


class Film(nn.Module):
    """Convolutions whose channels a label scales and shifts (feature-wise linear modulation)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 16)
        self.first, self.last = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.scales = nn.ModuleList(nn.Linear(16, 2 * width) for _ in range(2))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Images like ``x``."""
        condition = self.table(label)
        x = F.relu(self.first(x))
        for layer, scale in zip(self.layers, self.scales, strict=True):
            gain, shift = scale(condition)[:, :, None, None].chunk(2, 1)
            x = F.relu(layer(x) * (1 + gain) + shift) + x
        return self.last(x)


@network
def film() -> Task:
    """Digits drawn whole from their upper half and their class."""
    x, y = digits()
    half = x.clone()
    half[:, :, 4:] = 0
    train, test = split(half, y, x)
    return Task(
        build=Film,
        loss=lambda model, half, y, x: F.mse_loss(model(half, y), x),
        parts=lambda model, half, y, x: [(model, (half, y))],
        train=train,
        test=test,
        steps=120,
    )


class NoisyLinear(nn.Module):
    """Linear map with factorized noise, whose size is learned (Noisy networks)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.mean = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias_mean = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.size = nn.Parameter(torch.full((outputs, inputs), 0.5 * bound))
        self.bias_size = nn.Parameter(torch.full((outputs,), 0.5 * bound))

    def forward(self, x: Tensor) -> Tensor:
        """Noise is drawn anew for each batch, and none when evaluated."""
        if not self.training:
            return F.linear(x, self.mean, self.bias_mean)
        left, right = (torch.randn(n, device=x.device) for n in self.mean.shape)
        left, right = (t.sign() * t.abs().sqrt() for t in (left, right))
        return F.linear(
            x, self.mean + self.size * left[:, None] * right, self.bias_mean + self.bias_size * left
        )


@network
def noisy_network() -> Task:
    """MLP with noisy layers at its end, generated regression."""
    train, test = split(*friedman())

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), NoisyLinear(64, 64), nn.ReLU(), NoisyLinear(64, 1))

    return Task(build=build, loss=regression, train=train, test=test)


class Pointer(nn.Module):
    """A recurrent network reads numbers; additive attention points at one of them."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.GRU(1, width, batch_first=True)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of places, shape ``(batch, length)``."""
        states, last = self.encoder(x[:, :, None])
        return self.score(torch.tanh(self.query(last[0])[:, None] + self.key(states)))[:, :, 0]


@network
def pointer_network() -> Task:
    """Pointer network that finds the largest of ten numbers."""
    x = torch.randn(2048, 10, generator=generator())
    train, test = split(x, x.argmax(1))
    return Task(build=Pointer, loss=classification, train=train, test=test, stacks=False)


class Capsules(nn.Module):
    """Vectors of parts vote for vectors of wholes, whose lengths are the scores (dynamic routing)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 32, 3)
        self.primary = nn.Conv2d(32, 32, 3, stride=2)
        self.votes = nn.Parameter(0.1 * torch.randn(16, 10, 8, 8))

    @staticmethod
    def squash(x: Tensor) -> Tensor:
        """Shorten vectors to below one."""
        square = x.square().sum(-1, keepdim=True)
        return x * square / (1 + square) / (square + 1e-8).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        """Lengths, shape ``(batch, 10)``."""
        parts = self.primary(F.relu(self.conv(x))).unflatten(1, (4, 8)).permute(0, 1, 3, 4, 2)
        votes = torch.einsum("bpi,pcio->bpco", self.squash(parts.flatten(1, 3)), self.votes)
        logits = torch.zeros_like(votes[..., 0])
        for _ in range(2):
            wholes = self.squash((logits.softmax(2)[..., None] * votes).sum(1))
            logits = logits + torch.einsum("bpco,bco->bpc", votes, wholes)
        return (self.squash((logits.softmax(2)[..., None] * votes).sum(1)).square().sum(-1) + 1e-8).sqrt()


@network
def capsules() -> Task:
    """Capsule network with its margin loss, on digits."""
    train, test = split_digits()

    def margin(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        lengths, target = model(x), F.one_hot(y, 10)
        present = target * F.relu(0.9 - lengths) ** 2
        return (present + 0.5 * (1 - target) * F.relu(lengths - 0.1) ** 2).sum(1).mean()

    return Task(build=Capsules, loss=margin, train=train, test=test)


class Unrolled(nn.Module):
    """Learned iterative shrinkage: linear maps and thresholds of ten steps that share their weights."""

    def __init__(self, inputs: int = 20, codes: int = 40) -> None:
        super().__init__()
        self.encode = nn.Linear(inputs, codes, bias=False)
        self.mutual = nn.Linear(codes, codes, bias=False)
        self.threshold = nn.Parameter(torch.full((codes,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Sparse codes, shape ``(batch, codes)``."""
        drive = self.encode(x)
        code = torch.zeros_like(drive)
        for _ in range(6):
            whole = drive + self.mutual(code)
            code = whole.sign() * F.relu(whole.abs() - self.threshold)
        return code


@network
def unrolled_shrinkage() -> Task:
    """Learned iterative shrinkage that recovers sparse codes."""
    g = generator()
    codes = torch.randn(4096, 40, generator=g) * (torch.rand(4096, 40, generator=g) < 0.1)
    train, test = split(codes @ (torch.randn(40, 20, generator=g) / 20**0.5), codes)
    return Task(build=Unrolled, loss=regression, train=train, test=test)


class Attended(nn.Module):
    """Gated attention over the instances of a bag (multiple-instance learning)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU())
        self.value, self.gate = nn.Linear(48, 24), nn.Linear(48, 24)
        self.weight, self.head = nn.Linear(24, 1), nn.Linear(48, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Bags of shape ``(batch, instances, 64)``; a logit for each."""
        h = self.features(x)
        scores = self.weight(torch.tanh(self.value(h)) * torch.sigmoid(self.gate(h))).softmax(1)
        return self.head((scores * h).sum(1))[:, 0]


@network
def instance_attention() -> Task:
    """Does a bag of six digits have a nine? Gated attention over its instances."""
    x, y = digits()
    draws = torch.randint(len(x), (2048, 6), generator=generator())
    train, test = split(x.flatten(1)[draws], (y[draws] == 9).any(1).float())
    return Task(
        build=Attended,
        loss=lambda model, x, y: F.binary_cross_entropy_with_logits(model(x), y),
        train=train,
        test=test,
    )


class LinearAttention(nn.Module):
    """One causal layer of attention whose softmax is a product of positive features, and an MLP."""

    def __init__(self, tokens: int = 128, width: int = 48) -> None:
        super().__init__()
        self.table, self.place = nn.Embedding(tokens, width), nn.Embedding(32, width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = mlp(width, 2 * width, width)
        self.head = nn.Linear(width, tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(batch, length, tokens)``."""
        x = self.table(x) + self.place(torch.arange(x.shape[1], device=x.device))
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        scores = (q @ k.mT).tril()
        x = x + self.out((scores / scores.sum(-1, keepdim=True) @ v).transpose(1, 2).flatten(2))
        return self.head(self.last(x + self.mlp(x)))


@network
def linear_attention() -> Task:
    """Language model with linear attention, by character."""
    train, test = text(33)
    return Task(build=LinearAttention, loss=next_token, train=train, test=(test[0][:128],), size=32)


class EchoState(nn.Module):
    """A fixed random recurrent network, of whose states a linear map is learned."""

    def __init__(self, width: int = 100) -> None:
        super().__init__()
        inner = torch.randn(width, width) / width**0.5
        self.inner = nn.Parameter(0.9 * inner, requires_grad=False)
        self.inputs = nn.Parameter(torch.rand(width, 1) * 2 - 1, requires_grad=False)
        self.read = nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Of shape ``(batch, length)``, the next eight numbers."""
        state = torch.zeros(len(x), len(self.inner), device=x.device)
        for value in x.unbind(1):
            state = torch.tanh(value[:, None] * self.inputs[:, 0] + state @ self.inner.T)
        return self.read(state)


@network
def echo_state() -> Task:
    """Echo-state network: frozen recurrence of its owner's scale, a learned readout that continues sines."""
    data: Batch = (waves(1024, 32),)
    train, test = split(data[0][:, :24], data[0][:, 24:])
    return Task(build=EchoState, loss=regression, train=train, test=test)
