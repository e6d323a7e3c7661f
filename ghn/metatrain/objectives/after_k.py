"""Loss after a few steps of training."""

from torch import Tensor
from torch.optim import AdamW

from ghn.errors import ConfigError
from ghn.metatrain.objectives.objective import Objective, Trial, gradient_of


class AfterK(Objective):
    r"""Loss on fresh data after :math:`k` steps of AdamW from the network as it is cut out.

    First order: with :math:`w_k` the weights reached from :math:`w_0`, the gradient is :math:`\nabla L(w_k)`, as if
    the steps did not depend on :math:`w_0`. Each network takes ``steps + 1`` batches of the budget.

    Args:
        steps: Of training, 1 or more.
        lr: Its learning rate.

    Raises:
        ConfigError: If one of them is out of range.

    References:
        First-order MAML, https://arxiv.org/abs/1703.03400
    """

    def __init__(self, steps: int = 4, lr: float = 1e-3) -> None:
        if not isinstance(steps, int) or steps < 1 or not lr > 0:
            raise ConfigError(
                f"objective after_k has steps={steps}, lr={lr}; expected 1 or more, and more than 0"
            )
        self.steps, self.lr = steps, lr

    def gradient(self, trial: Trial) -> tuple[float, dict[str, Tensor]]:
        """See ``Objective.gradient``."""
        weights = {name: values.detach().clone().requires_grad_() for name, values in trial.weights.items()}
        optimizer = AdamW(weights.values(), lr=self.lr, weight_decay=0.0, foreach=True)
        for _ in range(self.steps):
            optimizer.zero_grad(set_to_none=True)
            trial.loss(weights, trial.batch()).backward()
            optimizer.step()
        return gradient_of(trial.loss(weights, trial.batch()), weights)
