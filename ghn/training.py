"""How a target is trained, when its weights are compared and when a hypernetwork learns from them."""

import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

MOMENTUM = 0.9
"""Of SGD."""


def new_accelerator(**settings: Any) -> Accelerator:
    """An ``Accelerator`` whose device and precision are its own: those of an earlier one outlive it otherwise."""
    if not torch.distributed.is_initialized():
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(**settings)


def make_optimizer(
    model: nn.Module, name: str, lr: float, weight_decay: float, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Optimizer:
    """AdamW or SGD; weight decay is for matrices and kernels, not for vectors and scalars.

    Args:
        model: All its parameters that require gradients are optimized.
        name: 'adamw', or 'sgd' with momentum.
        lr: Learning rate.
        weight_decay: As torch has it.
        betas: Of AdamW.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=MOMENTUM)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor of the peak learning rate at a step (the first is 1): linear rise, then a cosine that ends above 0."""
    rising = round(steps * warmup)
    if step <= rising:
        return step / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising - 1) / max(1, steps - rising)))
