"""One update of the hypernetwork: predict targets, learn from each, sum gradients over groups and processes."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch_geometric.data import Batch

from ghn.decoder import Order
from ghn.hypernetwork import GHN
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.objective import Lesson, learn
from ghn.metatrain.targets import Target
from ghn.metatrain.tasks import Task

BALANCE_DECAY = 0.95
"""Of the running means that losses are divided by."""

SMALLEST_MEAN = 1e-6
"""That a loss is divided by."""

FIGURES = ("loss", "first_loss", "last_loss", "trust")
"""Averages over the targets of an update that its row in the log holds."""

PHASES = ("draw", "predict", "target", "backward")
"""Of an update: build and trace targets and draw the random numbers of their predictions, or take all that from
workers; predict; train the targets; bring the gradients to the hypernetwork."""


@dataclass
class Learner:
    """The hypernetwork with all that an update changes."""

    net: GHN
    average: GHN
    """Its running average, which is what gets saved as the checkpoint."""
    optimizer: torch.optim.Optimizer
    means: dict[str, float] = field(default_factory=dict)
    """Running mean of each task's loss."""


@dataclass
class Tally:
    """What a process has learned from so far in an update."""

    figures: dict[str, list[float]]
    """By task: number of finite targets, number of others, and sums of ``FIGURES``."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    @contextmanager
    def timed(self, phase: str, device: torch.device) -> Iterator[None]:
        """Add the time of the body to one of ``PHASES``."""
        started = now(device)
        yield
        self.seconds[phase] += now(device) - started


def update(
    learner: Learner,
    targets: Iterator[Target],
    tasks: dict[str, Task],
    config: MetaTrainConfig,
    accelerator: Accelerator,
    step: int,
) -> dict[str, float]:
    """Do update number ``step``: every process takes as many targets as its ``share`` has, and learns from all.

    Nothing is learned from targets with a loss that is not finite, nor from a gradient that is not.

    Returns:
        The row for the log, the same in every process but for the times: averages over the targets, the number of
        targets ``skipped``, and of the ``dropped`` steps of the optimizer.
    """
    started = now(accelerator.device)
    for parameters in learner.optimizer.param_groups:
        parameters["lr"] = config.lr * parameters["pace"] * outer_schedule(step, config)
    tally = Tally({name: [0.0] * (2 + len(FIGURES)) for name in sorted(tasks)})
    lessons: list[tuple[Target, Lesson]] = []
    learner.optimizer.zero_grad(set_to_none=True)

    def drawn() -> Iterator[Target]:
        for _ in share(config, accelerator):
            with tally.timed("draw", accelerator.device):
                target = next(targets)
            yield target

    for group in _groups(drawn(), config.held_parameters):
        lessons += _learn_from(learner, group, tasks, config, accelerator, tally)
        if config.repeats == 1:
            lessons.clear()
    norms = [_step(learner, config, accelerator, _finite(tally))]
    for _ in range(config.repeats - 1):
        learner.optimizer.zero_grad(set_to_none=True)
        for target, lesson in lessons:
            predicted, trust = predict_with_trust(learner.net, [target])[0]
            _loss(learner, config, target, lesson, predicted, trust)[0].backward()
        norms.append(_step(learner, config, accelerator, _finite(tally)))
    with torch.no_grad():
        decay = min(config.ema, (step + 1) / (step + 10))
        for mean, new in zip(learner.average.parameters(), learner.net.parameters(), strict=True):
            mean.lerp_(new, 1 - decay)
    row = _row(learner, config, accelerator, tally)
    return {
        "step": step,
        **row,
        "dropped": len(norms) - sum(map(math.isfinite, norms)),
        "gradient_norm": norms[0] if math.isfinite(norms[0]) else 0.0,
        "processes": accelerator.num_processes,
        "seconds": now(accelerator.device) - started,
        **{f"{phase}_seconds": seconds for phase, seconds in tally.seconds.items()},
    }


def share(config: MetaTrainConfig, accelerator: Accelerator) -> range:
    """Numbers of the targets in every update that are this process's."""
    return range(config.targets_per_step)[accelerator.process_index :: accelerator.num_processes]


def outer_schedule(step: int, config: MetaTrainConfig) -> float:
    """Factor of the hypernetwork's peak learning rate: linear warm-up, then cosine to zero."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def predict_with_trust(net: GHN, targets: Sequence[Target]) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Predicted parameters of each target, and the trust of every tensor that has a learned part, shape ``(tensors,)``.

    The graphs go through encoder and decoder together. Tensors whose gradient is zero for certain carry none.
    """
    data = Batch.from_data_list([target.data for target in targets]).to(net.device)
    embeddings = net.encoder(data)[data.param_index]
    counts = [len(target.data.param_index) for target in targets]
    orders = [
        Order(target.graph, part, target.seed, target.remembered)
        for target, part in zip(targets, embeddings.split(counts), strict=True)
    ]
    trusts = net.decoder.statistics(embeddings).trust.split(counts)
    found = []
    for target, predicted, trust in zip(targets, net.decoder(orders), trusts, strict=True):
        learned = target.remembered.learned
        if net.config.decoder.max_gain == 1:
            predicted = {
                name: values if name in learned else values.detach() for name, values in predicted.items()
            }
        found.append((predicted, trust[list(learned.values())]))
    return found


def _groups(targets: Iterator[Target], held_parameters: int) -> Iterator[list[Target]]:
    """Targets that are held at once; a larger one is a group of its own."""
    group: list[Target] = []
    held = 0
    for target in targets:
        if group and held + target.numel > held_parameters:
            yield group
            group, held = [], 0
        group.append(target)
        held += target.numel
    if group:
        yield group


def _learn_from(
    learner: Learner,
    group: list[Target],
    tasks: dict[str, Task],
    config: MetaTrainConfig,
    accelerator: Accelerator,
    tally: Tally,
) -> list[tuple[Target, Lesson]]:
    """Train a group's targets from their predictions, and add the gradient of their losses to the hypernetwork's."""
    total: Tensor | None = None
    kept = []
    with tally.timed("predict", accelerator.device):
        predictions = predict_with_trust(learner.net, group)
    for target, (predicted, trust) in zip(group, predictions, strict=True):
        with tally.timed("target", accelerator.device):
            lesson = _train(target, predicted, tasks[target.task], config, accelerator)
        weighted, loss = _loss(learner, config, target, lesson, predicted, trust)
        figures = tally.figures[target.task]
        mean_trust = trust.mean().item() if len(trust) else 0.0
        if not all(map(math.isfinite, (loss, lesson.first_loss, lesson.last_loss))):
            figures[1] += 1
            continue
        figures[0] += 1
        for number, value in enumerate((loss, lesson.first_loss, lesson.last_loss, mean_trust), start=2):
            figures[number] += value
        total = weighted if total is None else total + weighted
        kept.append((target, lesson))
    if total is not None:
        with tally.timed("backward", accelerator.device):
            total.backward()
    return kept


def _train(
    target: Target,
    predicted: dict[str, Tensor],
    task: Task,
    config: MetaTrainConfig,
    accelerator: Accelerator,
) -> Lesson:
    parameters = dict(target.model.named_parameters())
    for name, values in predicted.items():
        parameters[name].data = values.detach().to(parameters[name].dtype, copy=True)
    model = target.model.to(accelerator.device).to(memory_format=torch.channels_last)
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(target.seed)  # dropout of the target
        start = {name: values.detach() for name, values in predicted.items()}
        lesson = learn(model, start, task, config, target.rng, accelerator.autocast)
    model.to("meta")  # its weights are not needed any more, and a group holds several
    return lesson


def _loss(
    learner: Learner,
    config: MetaTrainConfig,
    target: Target,
    lesson: Lesson,
    predicted: dict[str, Tensor],
    trust: Tensor,
) -> tuple[Tensor, float]:
    """What to differentiate for a target, and its loss as reported: without weight and penalties."""
    loss = lesson.loss(predicted)
    mean = learner.means.get(target.task, loss.item())
    weight = 1 / max(mean, SMALLEST_MEAN) if config.balance else 1.0
    if target.task == "images" and config.text:
        weight *= config.image_weight
    pull = config.image_trust_penalty if target.task == "images" else config.trust_penalty
    penalty = pull * trust.square().sum() / max(1, len(trust))
    if config.parameter_penalty:
        squares = torch.stack([values.square().mean() for values in predicted.values()])
        penalty = penalty + config.parameter_penalty * squares.mean()
    return weight * loss + penalty, loss.item()


def _step(learner: Learner, config: MetaTrainConfig, accelerator: Accelerator, finite: int) -> float:
    """Average gradients over the targets of all processes, clip, and step; returns the norm before clipping."""
    parameters = list(learner.net.parameters())
    # By hand: the hypernetwork's parts are called one by one, which no distributed wrapper sees.
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    count = torch.tensor([float(finite)], device=flat.device)
    flat, count = accelerator.reduce(flat, "sum"), accelerator.reduce(count, "sum")
    if not count:
        return math.nan
    flat = flat / count
    start = 0
    for parameter in parameters:
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    norm = float(nn.utils.clip_grad_norm_(parameters, config.clip_norm))
    if math.isfinite(norm):
        learner.optimizer.step()
    return norm


def _finite(tally: Tally) -> int:
    return round(sum(figures[0] for figures in tally.figures.values()))


def _row(
    learner: Learner, config: MetaTrainConfig, accelerator: Accelerator, tally: Tally
) -> dict[str, float]:
    """Averages over all processes, of all targets and of each task's; brings the running means up to date."""
    names = sorted(tally.figures)
    sums = torch.tensor([tally.figures[name] for name in names], device=accelerator.device)
    sums = accelerator.reduce(sums, "sum").cpu().double()
    finite, skipped = float(sums[:, 0].sum()), int(sums[:, 1].sum())
    row = {
        key: float(sums[:, number].sum()) / max(finite, 1.0) for number, key in enumerate(FIGURES, start=2)
    }
    for name, values in zip(names, sums.tolist(), strict=True):
        if values[0]:
            row[f"loss/{name}"] = mean = values[2] / values[0]
            before = learner.means.get(name, mean)
            learner.means[name] = BALANCE_DECAY * before + (1 - BALANCE_DECAY) * mean
    return {**row, "skipped": skipped}


def now(device: torch.device) -> float:
    """Seconds of a clock, after all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
