"""One update: cut networks out of the tables, try each on a batch or more, and let the tables learn from all."""

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.cutting import Noise, cut_out
from ghn.metatrain.objectives import Objective, Trial
from ghn.metatrain.processes import Processes
from ghn.metatrain.sampler import Sampler
from ghn.metatrain.state import TrainState
from ghn.tasks import Task
from ghn.user_code import blamed

PHASES = ("draw", "predict", "target", "backward", "optimizer", "validate", "save")
"""Of a run: choose networks; cut them out; try them; bring their gradients to the tables; sum these over the
processes, and step; validate; save."""


@dataclass(frozen=True)
class Ingredients:
    """What an update needs and doesn't change."""

    config: MetaTrainConfig
    tasks: Mapping[str, Task]
    """By kind of data."""
    samplers: Mapping[str, Sampler]
    """The networks of each."""
    objective: Objective
    noise: Noise
    processes: Processes


@dataclass
class Clock:
    """Seconds of each of ``PHASES``."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    last: float = field(default_factory=time.perf_counter)

    def lap(self, phase: str) -> None:
        """Add the time since the last call to a phase."""
        now = time.perf_counter()
        self.seconds[phase] += now - self.last
        self.last = now


def update(state: TrainState, ingredients: Ingredients, clock: Clock) -> dict[str, Any]:
    """Learn from a few networks of one kind of data, shared by the processes.

    Every random number is keyed by the seed, the update and the network's number in it. Nothing is learned from a loss
    that is not finite, nor from a gradient that is not.

    Returns:
        The row for the log, the same in every process: losses in nats by family of slots.
    """
    config, processes = ingredients.config, ingredients.processes
    settings = config.optimizer
    rng = random.Random(f"{config.seed}/{state.done}")
    kinds = sorted(ingredients.tasks)
    kind = "text" if len(kinds) > 1 and rng.random() >= config.image_share else kinds[0]
    rngs = [random.Random(f"{config.seed}/{state.done}/{number}") for number in range(settings.targets)]
    sampler = ingredients.samplers[kind]
    networks = [sampler.sample(own) for own in rngs]
    work = [sampler.work(network) for network in networks] if processes.count > 1 else None
    clock.lap("draw")
    trials = []
    for number in processes.share(range(settings.targets), work):
        trials.append((number, *_learn_from(state, ingredients, kind, networks[number], rngs[number], clock)))
    trials = processes.gather(trials)
    processes.add_gradients(list(state.bank.parameters()), state.gradients)
    norm = state.optimizer.step(state.done, kind)
    state.gradients.clear()
    clock.lap("optimizer")
    state.done += 1
    state.seen += sum(examples for *_, examples in trials)
    losses: dict[str, list[float]] = {}
    for _, family, loss, _ in sorted(trials):
        if math.isfinite(loss):
            losses.setdefault(family, []).append(loss)
    return {
        "update": state.done,
        "seen": state.seen,
        "task": kind,
        "loss": losses,
        "norm": norm if math.isfinite(norm) else 0.0,
        "skipped": sum(not math.isfinite(loss) for *_, loss, _ in trials),
        "dropped": int(not math.isfinite(norm)),
    }


def _learn_from(
    state: TrainState, ingredients: Ingredients, kind: str, network: int, rng: random.Random, clock: Clock
) -> tuple[str, float, int]:
    """Try a network and add its gradient; gives its family, loss and count of examples."""
    config, task = ingredients.config, ingredients.tasks[kind]
    target = ingredients.samplers[kind].target(network, state.bank)
    ingredients.noise.generator.manual_seed(rng.getrandbits(63))
    batches = torch.Generator().manual_seed(rng.getrandbits(63))
    clock.lap("draw")
    weights, extracts = cut_out(state.bank, target.params, ingredients.noise)
    clock.lap("predict")
    trial = Trial(target.network, weights, task, config.data.batch(kind), batches)
    with torch.random.fork_rng(devices=[]), blamed(config.objective):
        torch.manual_seed(rng.getrandbits(31))  # dropout of the target
        loss, grads = ingredients.objective.gradient(trial)
    clock.lap("target")
    if math.isfinite(loss):
        state.gradients.add(extracts, grads, 1 / config.optimizer.targets)
    clock.lap("backward")
    return target.family, loss, trial.examples
