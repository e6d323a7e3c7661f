"""Loss before any training."""

from torch import Tensor

from ghn.metatrain.objectives.objective import Objective, Trial, gradient_of


class Step0(Objective):
    """Loss of the network as it is cut out.

    What weight-sharing supernets and graph hypernetworks are trained with; what it learns outlives a training once it
    is good enough (docs/log/slots-what-held-them-back.md).

    References:
        GHN, https://arxiv.org/abs/1810.05749; Once-for-All, https://arxiv.org/abs/1908.09791
    """

    def gradient(self, trial: Trial) -> tuple[float, dict[str, Tensor]]:
        """See ``Objective.gradient``."""
        weights = {name: values.detach().requires_grad_() for name, values in trial.weights.items()}
        return gradient_of(trial.loss(weights, trial.batch()), weights)
