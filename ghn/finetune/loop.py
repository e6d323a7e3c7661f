"""One run: construct, initialize, train, evaluate."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from ghn.apply.calibrate import calibrate_
from ghn.arms import ArmSettings, arm_of
from ghn.base.blocks import keyed_generator
from ghn.data.order import evaluation_batches, training_batches
from ghn.environment import commit
from ghn.errors import ConfigError
from ghn.finetune.config import BudgetConfig, DeviceConfig, RunConfig
from ghn.finetune.memory import peak_bytes, reset_peak
from ghn.finetune.run import Point, Run
from ghn.finetune.task import ModelTask
from ghn.tasks import call
from ghn.training import make_optimizer, new_accelerator, schedule

CALIBRATION_BATCHES = 4
"""Training batches that BatchNorm statistics are averaged over before the first evaluation."""

EVALUATIONS = 10
"""Evaluations in a run, beside that at step 0."""

_CHECK_EVERY = 10
"""Steps between looks at the loss: each waits for the device."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every run may spend."""

    steps: int
    batch_size: int
    eval_every: int
    eval_samples: int

    @classmethod
    def of(cls, config: BudgetConfig, task: ModelTask, steps: int, batch_size: int) -> "Budget":
        """Fill in what the configuration leaves open."""
        return cls(
            steps=steps,
            batch_size=batch_size,
            eval_every=config.eval_every or max(1, steps // EVALUATIONS),
            eval_samples=min(config.eval_samples or task.eval_samples, len(task.evaluation)),
        )


def train_run(
    task: ModelTask,
    config: RunConfig,
    budget: Budget,
    accelerator: Accelerator,
    init: str,
    seed: int,
    lr: float,
    on_step: Callable[[], None] = lambda: None,
) -> Run:
    """Train one arm from one seed at one learning rate.

    Construction, order of examples, augmentation and dropout depend on the seed alone, not on the arm. BatchNorm
    statistics are calibrated on a few training batches before step 0 is evaluated, in every arm alike. A loss that is
    not finite ends the run, and the run says so.

    Args:
        task: What to train and measure.
        config: How it goes.
        budget: Steps, batch size and evaluations.
        accelerator: Where to run, and with which precision.
        init: Arm.
        seed: Seed of everything random.
        lr: Peak learning rate.
        on_step: Called after every step.

    Returns:
        The run with its curve.
    """
    device = accelerator.device
    reset_peak(device)
    model = task.build(seed)
    start = time.perf_counter()
    settings = ArmSettings(
        seed=seed, inputs=task.example(), checkpoint=config.checkpoint, examples=task.examples
    )
    note = arm_of(init)(model, settings)
    init_seconds = time.perf_counter() - start
    torch.manual_seed(seed + accelerator.process_index)  # for dropout: whatever the arm has drawn
    model.to(device)
    _calibrate(task, model, budget, accelerator, seed)
    optimizer = make_optimizer(model, config.optimizer, lr, config.weight_decay)
    model, optimizer = accelerator.prepare(model, optimizer)
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    curve = [evaluate(task, model, budget, accelerator, config.num_workers, 0)]
    error = _not_finite(curve[-1])
    train_seconds = 0.0
    batches = training_batches(task.train, budget.batch_size, seed, budget.steps, share, config.num_workers)
    worst = torch.zeros((), device=device)
    for step in range(1, budget.steps + 1):
        if error:
            break
        start = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(step, budget.steps, config.warmup)
        augment = keyed_generator(torch.device("cpu"), "augment", seed, step) if config.augment else None
        inputs, targets = task.inputs(next(batches), device, augment)
        loss, _ = task.loss(call(model, inputs), targets)
        accelerator.backward(loss)
        if config.clip:
            accelerator.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        worst = torch.maximum(worst, loss.detach())  # keeps NaN and infinity
        evaluated = step % budget.eval_every == 0 or step == budget.steps
        if evaluated or step % _CHECK_EVERY == 0:
            highest = float(accelerator.reduce(worst, "sum"))
            if not math.isfinite(highest):
                error = f"the training loss became {highest} by step {step}: the learning rate is too high"
        train_seconds += time.perf_counter() - start
        if evaluated and not error:
            curve.append(evaluate(task, model, budget, accelerator, config.num_workers, step))
            error = _not_finite(curve[-1])
        on_step()
    if error:
        curve = [point for point in curve if not _not_finite(point)]
    peak = peak_bytes(device)
    accelerator.free_memory()
    return Run(
        init=init,
        seed=seed,
        lr=lr,
        init_seconds=init_seconds,
        train_seconds=train_seconds,
        peak_bytes=peak,
        curve=tuple(curve),
        note=note,
        commit=commit(),
        error=error,
    )


@torch.no_grad()
def evaluate(
    task: ModelTask, model: nn.Module, budget: Budget, accelerator: Accelerator, workers: int, step: int
) -> Point:
    """Mean loss and metric over the evaluation examples, in eval mode; all processes take part."""
    # Unwrapped: a distributed wrapper would wait for processes that have fewer batches than others.
    model = accelerator.unwrap_model(model, keep_fp32_wrapper=True)
    model.eval()
    if accelerator.num_processes > 1:  # BatchNorm statistics, of which every process has seen its own
        for buffer in filter(torch.is_floating_point, model.buffers()):
            buffer.copy_(accelerator.reduce(buffer, "mean"))
    totals = torch.zeros(3, device=accelerator.device)
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    size = max(1, budget.batch_size // accelerator.num_processes)
    for batch in evaluation_batches(task.evaluation, size, budget.eval_samples, share, workers):
        inputs, targets = task.inputs(batch, accelerator.device)
        loss, right = task.loss(call(model, inputs), targets)
        count = targets.numel()
        totals += torch.stack([loss * count, right, torch.full_like(loss, count)])
    model.train()
    loss_sum, all_right, all_count = accelerator.reduce(totals, "sum").tolist()
    return Point(step, loss_sum / all_count, task.metric(loss_sum / all_count, all_right / all_count))


def make_accelerator(config: DeviceConfig) -> Accelerator:
    """Set up the device and the precision.

    Raises:
        ConfigError: If the device is not there, or doesn't know the precision.
    """
    kind, _, index = config.device.partition(":")
    available = {
        "auto": True,
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind not in available or (index and not (kind == "cuda" and index.isdecimal())):
        raise ConfigError(f"unknown --device {config.device!r}; expected auto, cpu, cuda, cuda:N or mps")
    if not available[kind] or (index and int(index) >= torch.cuda.device_count()):
        raise ConfigError(
            f"--device {config.device} is not available here (torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} GPUs); use --device cpu"
        )
    if config.precision == "fp16" and (kind == "cpu" or not (torch.cuda.is_available() or available["mps"])):
        raise ConfigError(
            "--precision fp16 needs a GPU: on a CPU it would run in fp32 unasked; use bf16 or fp32"
        )
    if index:
        torch.cuda.set_device(int(index))
    try:
        return new_accelerator(
            cpu=kind == "cpu",
            mixed_precision={"fp32": "no"}.get(config.precision, config.precision),
            dynamo_backend="inductor" if config.compile else None,
        )
    except (ValueError, ImportError) as error:
        raise ConfigError(
            f"--precision {config.precision} can't be used with --device {config.device}: {error}; use fp32"
        ) from error


def _calibrate(
    task: ModelTask, model: nn.Module, budget: Budget, accelerator: Accelerator, seed: int
) -> None:
    batches = training_batches(task.train, budget.batch_size, seed, CALIBRATION_BATCHES)
    with accelerator.autocast():
        calibrate_(model, (task.inputs(batch, accelerator.device)[0] for batch in batches))


def _not_finite(point: Point) -> str:
    if math.isfinite(point.loss):
        return ""
    return f"the evaluation loss became {point.loss} at step {point.step}: the learning rate is too high"
