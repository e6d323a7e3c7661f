"""Magnitude-invariant output: the learned part chooses directions, never sizes."""

from torch import Tensor


def combine(base: Tensor | None, learned: Tensor | None, trust: Tensor) -> Tensor:
    """Blend a base of unit variance with a learned direction of unit variance.

    ``sqrt(1 - trust**2) * base + trust * learned`` has unit variance again, so trust says how much is learned and
    nothing about magnitude; trust 0 is the base alone. A parameter without a base (a bias, say) moves away from its
    centre by ``trust * learned``.

    Args:
        base: Shape ``(rows, columns)``, unit root mean square, or None.
        learned: Same shape and size, or None for the base alone.
        trust: Scalar in [0, 1).

    References:
        MIP's additive output, https://arxiv.org/abs/2304.07645
    """
    if learned is None:
        if base is None:
            return trust.new_zeros(())
        return base
    if base is None:
        return trust * learned
    return (1 - trust**2).sqrt() * base + trust * learned
