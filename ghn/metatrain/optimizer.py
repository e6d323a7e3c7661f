"""AdamW over the tables that an update touches, and their running average."""

import math

import torch
from torch import Tensor, nn

from ghn.decoder.slots import SlotBank
from ghn.metatrain.config import OptimizerConfig


class TableOptimizer:
    """Changes a bank by its gradients, and an average with it; tables without a gradient stay as they are.

    Args:
        bank: Changed in place.
        average: Likewise.
        config: Rates and the like.
    """

    def __init__(self, bank: SlotBank, average: SlotBank, config: OptimizerConfig) -> None:
        self._config = config
        self._pairs = list(zip(bank.parameters(), average.parameters(), strict=True))
        self.adam = torch.optim.AdamW(
            [
                {"params": [table for table in bank.parameters() if table.dim() == dimensions]}
                for dimensions in (2, 1)
            ],
            betas=(0.9, 0.99),
            weight_decay=0.0,
            fused=True,  # one pass over the memory, where foreach takes eight
        )

    def step(self, update: int, kind: str) -> float:
        """Step by the gradients that the tables have.

        Args:
            update: Number of those done before.
            kind: Of data that the gradients came from.

        Returns:
            The norm of the gradients before clipping; nothing changes if it is not finite.
        """
        config = self._config
        touched = [(table, average) for table, average in self._pairs if table.grad is not None]
        gradients = [table.grad for table, _ in touched if table.grad is not None]
        norm = _norm(gradients)
        if not gradients or not math.isfinite(norm):
            return norm
        if norm > config.clip_norm:
            torch._foreach_mul_(gradients, config.clip_norm / (norm + 1e-6))
        for group, peak in zip(self.adam.param_groups, (config.lr(kind), config.vector_lr), strict=True):
            group["lr"] = peak * config.schedule(update)
        self.adam.step()
        decay = min(config.ema, (update + 1) / (update + 10))
        torch._foreach_lerp_(
            [average.data for _, average in touched], [table.data for table, _ in touched], 1 - decay
        )
        return norm


def _norm(gradients: list[Tensor]) -> float:
    """Of all gradients as one vector; 0 of none."""
    return float(nn.utils.get_total_norm(gradients, foreach=True)) if gradients else 0.0
