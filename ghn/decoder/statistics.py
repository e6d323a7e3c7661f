"""The few scalars of a tensor that are predicted beside its directions."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghn.decoder.config import DecoderConfig


@dataclass(frozen=True)
class Statistics:
    """Scalars predicted for each tensor, every field of shape ``(tensors,)``."""

    gain: Tensor
    """Factor on the standard deviation (of a constant, on the mean) that the rule says."""
    trust: Tensor
    """Standard-deviation share of the learned part, in (0, max_trust)."""


START_TRUST = 0.1
"""Of the untrained hypernetwork, or half of the largest if that is less."""


class StatisticsHead(nn.Module):
    """Predicts the scalars of every tensor; its last layer starts small, so that it starts from the defaults."""

    def __init__(self, embedding: int, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.net = nn.Sequential(nn.Linear(embedding, config.hidden), nn.GELU(), nn.Linear(config.hidden, 2))
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)

    def forward(self, embeddings: Tensor) -> Statistics:
        """Map embeddings ``(tensors, embedding)`` to ``Statistics``."""
        return self._bounded(self.net(embeddings))

    def defaults(self, like: Tensor) -> Statistics:
        """What an untrained head predicts, for as many tensors as ``like`` has rows."""
        return self._bounded(like.new_zeros(like.shape[0], 2))

    def _bounded(self, raw: Tensor) -> Statistics:
        config = self.config
        gain, trust = raw.unbind(-1)
        start = torch.logit(torch.tensor(min(START_TRUST / config.max_trust, 0.5))).item()
        return Statistics(
            # Without a gradient where it can't be anything else, which would pass through every tensor to be zero.
            gain=torch.ones_like(gain) if config.max_gain == 1 else config.max_gain ** torch.tanh(gain),
            trust=config.max_trust * torch.sigmoid(trust + start),
        )
