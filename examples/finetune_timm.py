"""Initialize a timm model and train it, from ghn and from its own initialization, on handwritten digits.

python examples/finetune_timm.py
"""

import timm
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import ghn

STEPS, BATCH, RATE = 60, 64, 1e-3


def digits() -> tuple[Tensor, Tensor]:
    """1,797 grey digits of 8×8 pixels, enlarged to 32×32 and repeated over three channels; and their labels."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16 - 0.5
    images = F.interpolate(images, size=(32, 32)).expand(-1, 3, -1, -1).contiguous()
    return images, torch.tensor(data.target)


def train(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Train on all but 400 examples; returns the accuracy on those."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    order = torch.randperm(len(images) - 400, generator=torch.Generator().manual_seed(0))
    model.train()
    for step in range(STEPS):
        batch = order[(step * BATCH + torch.arange(BATCH)) % len(order)]
        F.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        right = model(images[-400:]).argmax(-1) == labels[-400:]
    return float(right.float().mean())


def main() -> None:
    """Train from both starts."""
    images, labels = digits()
    for start in ("random", "ghn"):
        torch.manual_seed(0)
        model = timm.create_model("test_vit", num_classes=10, img_size=32)
        if start == "ghn":
            print(ghn.init_(model))
        print(f"{start}: {train(model, images, labels):.1%} after {STEPS} steps")


if __name__ == "__main__":
    main()
