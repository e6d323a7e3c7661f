"""A GPT written by hand, as nanoGPT's, in a training loop of one's own: bytes of Python's standard library.

python examples/gpt_plain_loop.py
"""

import math
import sysconfig
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ghn

LAYERS, WIDTH, HEADS, LENGTH = 2, 64, 4, 64
VOCABULARY, FIRST_BYTE = 384, 3  # as ByT5 numbers bytes: these tokens the shipped checkpoint has learned
STEPS, BATCH, RATE = 100, 16, 1e-3


class Block(nn.Module):
    """Causal attention and a two-layer network, each behind a normalization and added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            part.view(batch, length, HEADS, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """Logits of the next byte for every byte; the output map is the token table."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.tokens.weight
        for parameter in self.parameters():  # as GPT-2 starts: what is compared with
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.blocks(x)))


def text() -> Tensor:
    """About a million bytes of Python's source, as tokens."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:40]
    values = torch.frombuffer(bytearray(b"".join(path.read_bytes() for path in files)), dtype=torch.uint8)
    return values.long() + FIRST_BYTE


def train(model: GPT, data: Tensor) -> None:
    """Print the loss along a training, in bits per byte."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS + 1):
        starts = torch.randint(len(data) - LENGTH - 1, (BATCH,), generator=generator)
        windows = torch.stack([data[start : start + LENGTH + 1] for start in starts])
        loss = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        if step % (STEPS // 4) == 0:
            print(f"  step {step}: {float(loss) / math.log(2):.2f} bits per byte")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def main() -> None:
    """Train from GPT-2's initialization and from ghn."""
    data = text()
    for start in ("random", "ghn"):
        torch.manual_seed(0)
        model = GPT()
        if start == "ghn":
            # Example inputs tell ghn what the model takes; values of tokens don't matter.
            print(ghn.init_(model, inputs=torch.zeros(2, LENGTH, dtype=torch.long)))
        print(start)
        train(model, data)


if __name__ == "__main__":
    main()
