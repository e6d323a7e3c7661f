"""Magnitude-invariant output: the learned part chooses directions, never sizes."""

from torch import Tensor


def shares(trust: Tensor, random: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the random base and of the learned part, both of unit variance, in a parameter of unit variance.

    ``sqrt(1 - trust**2) * base + trust * learned`` has unit variance again, so trust says how much is learned and
    nothing about magnitude; trust 0 is the base alone. A parameter without a base (a bias, say) moves away from its
    centre by ``trust * learned``.

    Args:
        trust: In [0, 1], shape ``(tensors,)``.
        random: Whether each has a base, bool, shape ``(tensors,)``.

    Returns:
        Factors on the base and on the learned part, shape ``(tensors,)`` each.

    References:
        MIP's additive output, https://arxiv.org/abs/2304.07645
    """
    return (1 - trust**2).sqrt() * random, trust
