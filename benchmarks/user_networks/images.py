"""Convolutional networks of small images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from user_networks.data import digits, generator, split_digits
from user_networks.tabular import classification
from user_networks.task import Batch, Family, Task, split

network = Family("images", (1e-3, 3e-3, 1e-2))


@network
def cnn_plain() -> Task:
    """Two ReLU convolutions with pooling and two linear maps, on digits."""
    train, test = split_digits()

    def build() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
        )

    return Task(build=build, loss=classification, train=train, test=test, steps=120)


@network
def cnn_batch_norm() -> Task:
    """The same with batch normalization."""
    train, test = split_digits()

    def build() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
        )

    return Task(build=build, loss=classification, train=train, test=test, steps=120)


@network
def cnn_deep() -> Task:
    """Eight ReLU convolutions without normalization, on digits."""
    train, test = split_digits()

    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()]
        for number in range(7):
            layers += [nn.Conv2d(16, 16, 3, 2 if number in (2, 5) else 1, 1), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 10))

    return Task(build=build, loss=classification, train=train, test=test)


class ZeroBlock(nn.Module):
    """Residual block without normalization whose last convolution starts at zero, as Fixup."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return F.relu(x + self.second(F.relu(self.first(x))))


@network
def resnet_zero_ends() -> Task:
    """ResNet of four blocks without normalization whose branches start at zero, on digits."""
    train, test = split_digits()

    def build() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), ZeroBlock(16), ZeroBlock(16)),
            *(nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), ZeroBlock(32), ZeroBlock(32)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
        )

    return Task(build=build, loss=classification, train=train, test=test, steps=120, size=32)


def _convolutions(inputs: int, outputs: int, norms: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers.append(nn.Conv2d(channels, outputs, 3, padding=1))
        layers += [nn.BatchNorm2d(outputs)] if norms else []
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Two resolutions and a skip connection."""

    def __init__(self, norms: bool, width: int = 12) -> None:
        super().__init__()
        self.high, self.low = _convolutions(1, width, norms), _convolutions(width, 2 * width, norms)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.last, self.end = _convolutions(2 * width, width, norms), nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each pixel."""
        high = self.high(x)
        low = self.up(self.low(F.max_pool2d(high, 2)))
        return self.end(self.last(torch.cat([low, high], dim=1)))


def _discs(count: int = 1024, size: int = 16) -> tuple[Batch, Batch]:
    """Noisy images of discs, their masks, and their centres and radii in units of the image."""
    g = generator()
    centre, radius = (
        torch.rand(count, 2, 1, 1, generator=g),
        0.15 + 0.2 * torch.rand(count, 1, 1, generator=g),
    )
    grid = (torch.arange(size) + 0.5) / size
    distance = ((grid[:, None] - centre[:, 0]).square() + (grid - centre[:, 1]).square()).sqrt()
    mask = (distance < radius).float()[:, None]
    image = mask + 0.7 * torch.randn(mask.shape, generator=g)
    return split(image, mask, torch.cat([centre[:, :, 0, 0], radius[:, :, 0]], dim=1))


def _segmentation(norms: bool) -> Task:
    train, test = _discs()
    return Task(
        build=lambda: UNet(norms),
        loss=lambda model, x, y, _: F.binary_cross_entropy_with_logits(model(x), y),
        train=train,
        test=test,
        steps=100,
        size=32,
    )


@network
def unet_plain() -> Task:
    """U-Net without normalization that finds noisy discs."""
    return _segmentation(norms=False)


@network
def unet_batch_norm() -> Task:
    """U-Net with batch normalization that finds noisy discs."""
    return _segmentation(norms=True)


class Detector(nn.Module):
    """A backbone without normalization, and heads for where and how large, as CenterNet."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            *(nn.Conv2d(1, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU()),
        )
        self.where = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 1)
        )
        self.box = nn.Sequential(nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 3, 1))
        last = self.where[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.constant_(last.bias, -2.7)  # one cell in sixteen holds a centre

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the sixteen cells, and offset and size in each, shapes ``(batch, 16)``, ``(batch, 3, 16)``."""
        features = self.backbone(x)
        return self.where(features).flatten(1), self.box(features).flatten(2)


@network
def detector() -> Task:
    """Object detector with two heads and a prior in the bias of one."""
    train, test = _discs()

    def loss(model: nn.Module, x: Tensor, _: Tensor, truth: Tensor) -> Tensor:
        where, boxes = model(x)
        cell = (4 * truth[:, 0]).long() * 4 + (4 * truth[:, 1]).long()
        box = boxes[torch.arange(len(x)), :, cell]
        goal = torch.cat([(4 * truth[:, :2]) % 1, 4 * truth[:, 2:]], dim=1)
        location_loss = F.binary_cross_entropy_with_logits(where, F.one_hot(cell, 16).float())
        return location_loss + F.smooth_l1_loss(box, goal)

    return Task(build=Detector, loss=loss, train=train, test=test, steps=120, size=32)


@network
def super_resolution() -> Task:
    """ReLU convolutions and a pixel shuffle that double the resolution of digits."""
    x, _ = digits()
    train, test = split(F.avg_pool2d(x, 2), x)

    def build() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, 4, 3, padding=1), nn.PixelShuffle(2)),
        )

    return Task(
        build=build,
        loss=lambda model, x, y: F.mse_loss(model(x), y),
        train=train,
        test=test,
    )


@network
def spectral_digits() -> Task:
    """Leaky ReLU convolutions under spectral normalization, as in a discriminator, on digits."""
    train, test = split_digits()

    def build() -> nn.Module:
        return nn.Sequential(
            *(spectral_norm(nn.Conv2d(1, 16, 3, 2, 1)), nn.LeakyReLU(0.2)),
            *(spectral_norm(nn.Conv2d(16, 32, 3, 2, 1)), nn.LeakyReLU(0.2)),
            *(nn.Flatten(), spectral_norm(nn.Linear(128, 64)), nn.LeakyReLU(0.2), nn.Linear(64, 10)),
        )

    return Task(build=build, loss=classification, train=train, test=test, steps=150, stacks=False)
