"""Mixtures, ensembles, Bayesian layers, adapters, and networks of reinforcement learning."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from user_networks.data import friedman, generator, split_digits
from user_networks.tabular import classification, mlp, regression
from user_networks.task import Batch, Family, Task, split

network = Family("composed", (1e-3, 3e-3, 1e-2))


class Experts(nn.Module):
    """Two of four experts answer, weighted by a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(10, 4)
        self.experts = nn.ModuleList(mlp(10, 32, 32, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(batch, 1)``."""
        best, choices = self.gate(x).topk(2, dim=1)
        answers = torch.cat([expert(x) for expert in self.experts], dim=1)
        return (best.softmax(1) * answers.gather(1, choices)).sum(1, keepdim=True)


@network
def mixture_of_experts() -> Task:
    """Mixture of four ReLU MLPs of which two answer, generated regression."""
    train, test = split(*friedman())
    return Task(build=Experts, loss=regression, train=train, test=test)


class Member(nn.Module):
    """Linear map that all members share, with each member's signs on inputs and outputs."""

    def __init__(self, inputs: int, outputs: int, members: int) -> None:
        super().__init__()
        self.shared = nn.Linear(inputs, outputs, bias=False)
        self.before = nn.Parameter(torch.randint(2, (members, 1, inputs)) * 2.0 - 1)
        self.after = nn.Parameter(torch.randint(2, (members, 1, outputs)) * 2.0 - 1)
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(members, batch, inputs)``."""
        return self.shared(x * self.before) * self.after + self.bias


class Ensemble(nn.Module):
    """Batch ensemble of four ReLU MLPs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Member(10, 64, 4), nn.ReLU(), Member(64, 64, 4), nn.ReLU(), Member(64, 1, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The members' answers, shape ``(members, batch, 1)``."""
        return self.layers(x.expand(4, -1, -1))


@network
def batch_ensemble() -> Task:
    """Batch ensemble of four members, generated regression."""
    train, test = split(*friedman())
    return Task(
        build=Ensemble,
        loss=lambda model, x, y: (model(x) - y).square().mean(),
        train=train,
        test=test,
    )


class Bayesian(nn.Module):
    """Linear map whose weights are drawn anew from a mean and a deviation at each pass."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.mean = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.rho = nn.Parameter(torch.full((outputs, inputs), -4.0))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(batch, outputs)``."""
        weight = self.mean + F.softplus(self.rho) * torch.randn_like(self.mean)
        return F.linear(x, weight, self.bias)

    def divergence(self) -> Tensor:
        """From a standard normal prior, in nats."""
        deviation = F.softplus(self.rho)
        return ((deviation.square() + self.mean.square() - 1) / 2 - deviation.log()).sum()


@network
def bayesian_mlp() -> Task:
    """Bayesian ReLU MLP (Bayes by backprop), generated regression."""
    train, test = split(*friedman())

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        weight = 1e-5 * sum(layer.divergence() for layer in model.modules() if isinstance(layer, Bayesian))
        return F.mse_loss(model(x), y) + weight

    return Task(
        build=lambda: nn.Sequential(
            Bayesian(10, 48), nn.ReLU(), Bayesian(48, 48), nn.ReLU(), Bayesian(48, 1)
        ),
        loss=loss,
        train=train,
        test=test,
        steps=250,
    )


class LowRank(nn.Module):
    """A frozen linear map plus a product of two thin matrices of which the second starts at zero."""

    def __init__(self, body: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.body = body.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, body.in_features) / math.sqrt(body.in_features))
        self.up = nn.Parameter(torch.zeros(body.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(batch, outputs)``."""
        return self.body(x) + x @ self.down.T @ self.up.T


def pretrained() -> nn.Sequential:
    """An MLP that tells even digits from odd ones, trained for a moment."""
    (x, y), _ = split_digits(flat=True)
    model = mlp(64, 64, 64, 2)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x[:512]), y[:512] % 2).backward()
        optimizer.step()
    return model


@network
def lora() -> Task:
    """Low-rank adapters on a frozen MLP of even and odd digits, for all ten."""
    train, test = split_digits(flat=True)

    def build() -> nn.Module:
        first, relu, second, _, _ = pretrained()
        assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
        return nn.Sequential(LowRank(first), relu, LowRank(second), nn.ReLU(), nn.Linear(64, 10))

    return Task(build=build, loss=classification, train=train, test=test)


class Adapter(nn.Module):
    """A frozen layer, then a narrow residual MLP whose end starts at zero."""

    def __init__(self, body: nn.Linear) -> None:
        super().__init__()
        self.body = body.requires_grad_(False)
        self.down, self.up = nn.Linear(body.out_features, 8), nn.Linear(8, body.out_features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(batch, outputs)``."""
        hidden = F.relu(self.body(x))
        return hidden + self.up(F.gelu(self.down(hidden)))


@network
def adapters() -> Task:
    """Bottleneck adapters on a frozen MLP of even and odd digits, for all ten."""
    train, test = split_digits(flat=True)

    def build() -> nn.Module:
        first, _, second, _, _ = pretrained()
        assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
        return nn.Sequential(Adapter(first), Adapter(second), nn.Linear(64, 10))

    return Task(build=build, loss=classification, train=train, test=test)


@network
def policy_bandit() -> Task:
    """Policy by REINFORCE: a digit is shown, its name is rewarded; reported is the chance of a wrong one."""
    train, test = split_digits(flat=True)

    def wrong(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return 1 - model(x).softmax(1).gather(1, y[:, None]).mean()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        policy = torch.distributions.Categorical(logits=model(x))
        action = policy.sample()
        reward = (action == y).float()
        return -(policy.log_prob(action) * (reward - reward.mean())).mean() - 0.01 * policy.entropy().mean()

    return Task(
        build=lambda: mlp(64, 64, 64, 10, activation=nn.Tanh),
        loss=loss,
        measure=wrong,
        train=train,
        test=test,
        steps=400,
        size=128,
    )


def _episodes(discount: float = 0.9) -> tuple[Batch, Batch]:
    """States of a noisy pendulum, rewards, next states, and true values by rolling on."""
    g = generator()
    turn = torch.tensor([[0.95, 0.3], [-0.3, 0.95]])
    states = [2 * torch.randn(2048, 2, generator=g)]
    for _ in range(40):
        states.append(states[-1] @ turn.T + 0.02 * torch.randn(2048, 2, generator=g))
    rewards = torch.stack(
        [state.norm(dim=1).sub(1).abs().neg().exp() + (state[:, 0] > 0) for state in states]
    )
    value = (discount ** torch.arange(len(states))[:, None] * rewards).sum(0)
    return split(states[0], rewards[0], states[1], value)


class Dueling(nn.Module):
    """A body with a head of values and a head of advantages, as in dueling networks."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.value, self.advantage = mlp(2, 64, 64), nn.Linear(64, 1), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Value of each action."""
        hidden = F.relu(self.body(x))
        advantage = self.advantage(hidden)
        return self.value(hidden) + advantage - advantage.mean(1, keepdim=True)


def _temporal_difference(model: nn.Module, state: Tensor, reward: Tensor, after: Tensor, _: Tensor) -> Tensor:
    target = reward + 0.9 * model(after).amax(1).detach()
    return F.smooth_l1_loss(model(state).amax(1), target)


def _value_error(model: nn.Module, state: Tensor, reward: Tensor, after: Tensor, value: Tensor) -> Tensor:
    return F.mse_loss(model(state).amax(1), value)


@network
def value_network() -> Task:
    """ReLU value network by temporal differences; reported is the squared error of its values."""
    train, test = _episodes()
    return Task(
        build=lambda: mlp(2, 64, 64, 1),
        loss=_temporal_difference,
        measure=_value_error,
        train=train,
        test=test,
        steps=400,
        size=128,
    )


@network
def dueling_network() -> Task:
    """Dueling action values by temporal differences; reported is the squared error of the best one."""
    train, test = _episodes()
    return Task(
        build=Dueling,
        loss=_temporal_difference,
        measure=_value_error,
        train=train,
        test=test,
        steps=400,
        size=128,
    )


class ActorCritic(nn.Module):
    """Tanh policy and value networks with the orthogonal start of PPO's implementations."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = mlp(64, 64, 64, 10, activation=nn.Tanh)
        self.critic = mlp(64, 64, 64, 1, activation=nn.Tanh)
        for body, gain in ((self.actor, 0.01), (self.critic, 1.0)):
            for layer in body:
                if isinstance(layer, nn.Linear):
                    nn.init.orthogonal_(layer.weight, gain if layer is body[-1] else math.sqrt(2))
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of actions, and the value."""
        return self.actor(x), self.critic(x)[:, 0]


@network
def actor_critic() -> Task:
    """Actor and critic with their owner's orthogonal start; reported is the chance of a wrong action."""
    train, test = split_digits(flat=True)

    def wrong(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return 1 - model(x)[0].softmax(1).gather(1, y[:, None]).mean()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits, value = model(x)
        policy = torch.distributions.Categorical(logits=logits)
        action = policy.sample()
        reward = (action == y).float()
        gain = -(policy.log_prob(action) * (reward - value.detach())).mean()
        return gain + 0.5 * F.mse_loss(value, reward) - 0.01 * policy.entropy().mean()

    return Task(build=ActorCritic, loss=loss, measure=wrong, train=train, test=test, steps=400, size=128)
