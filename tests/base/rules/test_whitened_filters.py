"""Filters of pixels: which parameters they are, and what whitening does to their outputs."""

import pytest
import torch
from torch import nn

from ghn.base import decisions
from ghn.base.rules.whitened_filters import whiten_pixels
from ghn.models import load_model
from ghn.tracing.trace import trace


def natural(count: int, size: int) -> torch.Tensor:
    """Noise with the spectrum of photographs: power falls with the square of the frequency, colours are faint."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 3, size, size, generator=generator)
    frequency = torch.fft.fftfreq(size)
    radius = (frequency[:, None] ** 2 + frequency**2).sqrt().clamp_min(0.5 / size)
    smooth = torch.fft.ifft2(torch.fft.fft2(noise) / radius).real
    opponents = torch.linalg.qr(torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]]).T).Q
    images = torch.einsum("cd,bdhw->bchw", opponents, smooth * torch.tensor([1.0, 0.3, 0.15])[:, None, None])
    return images / images.std()


@pytest.mark.parametrize("kernel", [3, 4, 7, (8, 8), 16])
def test_outputs_for_natural_images_use_more_directions(kernel):
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    shape = (3, *sides)
    generator = torch.Generator().manual_seed(1)
    white = torch.randn(64, 3 * sides[0] * sides[1], generator=generator)
    images = natural(64, 32)
    spectra, sizes = [], []
    for matrix in (white, whiten_pixels(white, shape)):
        outputs = nn.functional.conv2d(images, matrix.view(64, *shape)).movedim(1, -1).reshape(-1, 64)
        values = torch.linalg.svdvals(outputs - outputs.mean(0)).square()
        spectra.append((values.sum() ** 2 / values.square().sum()).item())  # directions that outputs use
        sizes.append(outputs.std().item())
    assert spectra[1] > 3 * spectra[0]
    assert 0.5 < sizes[1] / sizes[0] < 3  # the spectrum of these images is not exactly the one assumed


def test_one_channel_and_volumes_have_no_colours_and_kernels_of_points_no_frequencies():
    generator = torch.Generator().manual_seed(1)
    for shape in ((1, 5, 5), (3, 2, 4, 4), (3, 1, 1), (1, 1, 1)):
        white = torch.randn(2000, torch.Size(shape).numel(), generator=generator)
        shaped = whiten_pixels(white, shape)
        assert shaped.shape == white.shape and shaped.isfinite().all()
        covariance = shaped.mT @ shaped / len(shaped)
        diagonal = covariance.diagonal()
        assert (diagonal.max() > 1.05 * diagonal.min()) == (shape != (1, 1, 1))
    torch.testing.assert_close(whiten_pixels(white, (1, 1, 1)), white)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("timm:test_vit", set()),  # no normalization reads it
        ("timm:test_resnet", set()),  # kernels of 3×3
        ("timm:test_convnext", {"stem.0.weight"}),
        ("torchvision:resnet18", {"conv1.weight"}),
        ("torchvision:r3d_18", {"stem.0.weight"}),
        ("timm:swin_tiny_patch4_window7_224", {"patch_embed.proj.weight"}),
        ("hf:bert", set()),
    ],
)
def test_pixels_are_where_images_enter(model, expected):
    graph = trace(load_model(model, device="meta"))
    made = decisions(graph)
    assert {name for name, decision in made.items() if decision.init.whitened} == expected


class Signals(nn.Module):
    """Six channels, a waveform, and each colour alone: no images of a kind that anything is known of."""

    def __init__(self):
        super().__init__()
        self.six, self.wave = nn.Conv2d(6, 4, 3), nn.Conv1d(1, 4, 3)
        self.alone, self.late = nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(3, 4, 3)

    def forward(self, many, wave, image):
        parts = [
            self.six(many),
            self.wave(wave)[..., None],
            self.alone(image),
            self.late(self.alone(image)[:, :3]),
        ]
        return sum(part.sum() for part in parts)


def test_other_signals_are_left_alone():
    graph = trace(Signals(), (torch.ones(1, 6, 8, 8), torch.ones(1, 1, 8), torch.ones(1, 3, 8, 8)))
    assert not any("whitened_filters" in decision.modifiers for decision in decisions(graph).values())
