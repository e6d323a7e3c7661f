"""Autoencoders, variational and not, on digits of 8 × 8 pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from user_networks.data import split_digits
from user_networks.tabular import mlp
from user_networks.task import Family, Task

network = Family("autoencoders", (1e-3, 3e-3, 1e-2))


def reconstruction(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of the output from the input."""
    return F.mse_loss(model(x), x)


@network
def autoencoder_linear() -> Task:
    """ReLU autoencoder of linear maps, eight numbers in the middle, a sigmoid at the end."""
    train, test = split_digits(flat=True)

    def build() -> nn.Module:
        return nn.Sequential(mlp(64, 48, 8), mlp(8, 48, 64), nn.Sigmoid())

    return Task(build=build, loss=reconstruction, train=train, test=test)


@network
def autoencoder_convolutional() -> Task:
    """Strided convolutions and transposed ones, no normalization."""
    train, test = split_digits()

    def build() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 64), nn.ReLU(), nn.Unflatten(1, (16, 2, 2))),
            *(nn.ConvTranspose2d(16, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1)),
        )

    return Task(build=build, loss=reconstruction, train=train, test=test)


@network
def autoencoder_denoising() -> Task:
    """ReLU convolutions of one resolution take noise away."""
    train, test = split_digits()

    def build() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 1, 3, padding=1)),
        )

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(model(x + 0.5 * torch.randn_like(x)), x)

    return Task(build=build, loss=loss, train=train, test=test, steps=150)


class Tied(nn.Module):
    """The decoder is the encoder's transposed matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 48), nn.Linear(48, 8)
        self.biases = nn.ParameterList([torch.zeros(48), torch.zeros(64)])

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(batch, 64)``."""
        code = self.second(F.relu(self.first(x)))
        hidden = F.relu(F.linear(code, self.second.weight.T, self.biases[0]))
        return F.linear(hidden, self.first.weight.T, self.biases[1])


@network
def autoencoder_tied() -> Task:
    """Autoencoder whose decoder reads the encoder's matrices the other way round."""
    train, test = split_digits(flat=True)
    return Task(build=Tied, loss=reconstruction, train=train, test=test)


class Sparse(nn.Module):
    """Overcomplete dictionary of non-negative codes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 256), nn.Linear(256, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and codes."""
        codes = F.relu(self.encoder(x - self.decoder.bias))
        return self.decoder(codes), codes


@network
def autoencoder_sparse() -> Task:
    """Sparse autoencoder of 256 codes with an L1 penalty."""
    train, test = split_digits(flat=True)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        output, codes = model(x)
        return F.mse_loss(output, x) + 3e-3 * codes.abs().mean()

    return Task(build=Sparse, loss=loss, train=train, test=test)


class Variational(nn.Module):
    """An encoder with two heads, noise, and a decoder that puts out logits of pixels."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, width: int, latent: int = 8) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.mean, self.log_variance = nn.Linear(width, latent), nn.Linear(width, latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, mean and log variance."""
        hidden = self.encoder(x)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        code = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        return self.decoder(code), mean, log_variance


def evidence(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Negative evidence lower bound in nats per image."""
    logits, mean, log_variance = model(x)
    pixels = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
    return (pixels + divergence) / len(x)


@network
def vae_linear() -> Task:
    """Variational autoencoder of linear maps and ReLU."""
    train, test = split_digits(flat=True)

    def build() -> nn.Module:
        return Variational(nn.Sequential(nn.Linear(64, 64), nn.ReLU()), mlp(8, 64, 64), 64)

    return Task(build=build, loss=evidence, train=train, test=test)


@network
def vae_convolutional() -> Task:
    """Variational autoencoder of strided convolutions and ReLU, no normalization."""
    train, test = split_digits()

    def build() -> nn.Module:
        encoder = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten())
        )
        decoder = nn.Sequential(
            *(nn.Linear(8, 128), nn.ReLU(), nn.Unflatten(1, (32, 2, 2))),
            *(nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1)),
        )
        return Variational(encoder, decoder, 128)

    return Task(build=build, loss=evidence, train=train, test=test)


class Quantized(nn.Module):
    """Codes are replaced by the nearest of a codebook; gradients pass straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 64, 4 * 8), mlp(4 * 8, 64, 64)
        self.codebook = nn.Embedding(32, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction, and the distance between codes and codebook."""
        codes = self.encoder(x).view(-1, 8)
        nearest = self.codebook(torch.cdist(codes, self.codebook.weight).argmin(1))
        distance = F.mse_loss(nearest, codes.detach()) + 0.25 * F.mse_loss(codes, nearest.detach())
        quantity = codes + (nearest - codes).detach()
        return self.decoder(quantity.view(len(x), -1)), distance


@network
def vae_quantized() -> Task:
    """Vector-quantized autoencoder, four codes of a codebook of 32."""
    train, test = split_digits(flat=True)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        output, distance = model(x)
        return F.mse_loss(output, x) + 0.1 * distance

    return Task(build=Quantized, loss=loss, train=train, test=test)
