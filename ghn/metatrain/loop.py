"""Meta-training: sample targets, train them from their predicted weights, learn from where they went."""

import copy
import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ghn.errors import OutputError
from ghn.graph.graph import ComputationGraph
from ghn.graph.trace import trace
from ghn.hypernetwork import GHN
from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.objective import adapt, regression_loss
from ghn.metatrain.state import load_state, save_state
from ghn.metatrain.tasks import Task, load_tasks
from ghn.spaces import Architecture, sample_cnn, sample_gpt2, sample_vit

LOG = "log.jsonl"

Progress = Callable[[int, dict[str, float]], None]
"""Called after every update with the number of updates done and their averages."""


def metatrain(
    config: MetaTrainConfig,
    folder: Path,
    max_seconds: float = math.inf,
    progress: Progress | None = None,
) -> GHN:
    """Train a hypernetwork; go on where an earlier call with the same settings and folder stopped.

    Every random number is keyed by the seed and the update, so a run that was killed and resumed gives the same
    losses as one that was not.

    Args:
        config: Settings.
        folder: Gets the state, ``log.jsonl`` and, after the last update, the checkpoint of the averaged weights.
        max_seconds: Save and return after about this long.
        progress: Told about every update.

    Returns:
        The hypernetwork with averaged weights.

    Raises:
        OutputError: If the folder can't be written.
        ConfigError: If the folder holds a run with other settings.
    """
    started = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} can't be made: {error}; choose another output folder") from error
    tasks = load_tasks(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = GHN(config.ghn)
    average = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=1e-4)
    done = load_state(folder, config.to_dict(), net, average, optimizer)
    log = _kept_log(folder / LOG, done)
    for step in range(done, config.steps):
        row = _update(net, average, optimizer, tasks, config, step)
        log.append(row)
        if progress is not None:
            progress(step + 1, row)
        out_of_time = time.monotonic() - started > max_seconds
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps or out_of_time:
            (folder / LOG).write_text("".join(json.dumps(entry) + "\n" for entry in log))
            save_state(folder, step + 1, config.to_dict(), net, average, optimizer)
        if out_of_time:
            break
    average.eval().save_pretrained(folder / "checkpoint")
    return average


def _kept_log(path: Path, done: int) -> list[dict[str, float]]:
    """Rows of the updates that the saved state includes."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return rows[:done]


def _update(
    net: GHN,
    average: GHN,
    optimizer: torch.optim.Optimizer,
    tasks: dict[str, Task],
    config: MetaTrainConfig,
    step: int,
) -> dict[str, float]:
    """One update of the hypernetwork from a few targets; targets with non-finite losses are counted and left out."""
    optimizer.zero_grad()
    rows = []
    for number in range(config.targets_per_step):
        rng = random.Random(f"{config.seed}/{step}/{number}")
        rows.append(_learn_from_target(net, tasks, config, rng))
    finite = [row for row in rows if math.isfinite(row["loss"])]
    for group in optimizer.param_groups:
        group["lr"] = config.lr * _schedule(step, config)
    if finite:
        for parameter in net.parameters():
            if parameter.grad is not None:
                parameter.grad /= len(finite)
        nn.utils.clip_grad_norm_(net.parameters(), config.clip_norm)
        optimizer.step()
    with torch.no_grad():
        for mean, new in zip(average.parameters(), net.parameters(), strict=True):
            mean.lerp_(new, 1 - min(config.ema, (step + 1) / (step + 10)))
    keys = ("loss", "first_loss", "last_loss", "trust")
    means = {key: sum(row[key] for row in finite) / max(len(finite), 1) for key in keys}
    return {"step": step, **means, "skipped": len(rows) - len(finite)}


def _learn_from_target(
    net: GHN, tasks: dict[str, Task], config: MetaTrainConfig, rng: random.Random
) -> dict[str, float]:
    """Sample a target, adapt it, and add the gradient of its loss to the hypernetwork's."""
    task = tasks[rng.choice(sorted(tasks))]
    model = _sample(task, config, rng).build(**({"num_classes": task.width} if task.name == "images" else {}))
    batch = task.batch(2, torch.Generator().manual_seed(rng.getrandbits(63)))
    graph = trace(model, _example(task, batch))
    seed = rng.getrandbits(31)
    predicted, trust = predict_with_trust(net, graph, seed)
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        for name, values in predicted.items():
            parameters[name].copy_(values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout of the target
        adaptation = adapt(model, task, config, rng, torch.Generator().manual_seed(rng.getrandbits(63)))
    loss = regression_loss(predicted, adaptation.parameters) + config.trust_penalty * trust.square().mean()
    row = {
        "loss": loss.item(),
        "first_loss": adaptation.first_loss,
        "last_loss": adaptation.last_loss,
        "trust": trust.mean().item(),
    }
    if math.isfinite(row["loss"]):
        loss.backward()
    return row


def predict_with_trust(net: GHN, graph: ComputationGraph, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Predicted parameters and the trust of every tensor, shape ``(tensors,)``."""
    embeddings = net.encode(graph)
    return net.decoder(embeddings, graph, seed), net.decoder.statistics(embeddings).trust


def _sample(task: Task, config: MetaTrainConfig, rng: random.Random) -> Architecture:
    if task.name == "text":
        return sample_gpt2(rng, task.width, config.sequence_length)
    return sample_cnn(rng) if rng.random() < 0.5 else sample_vit(rng, config.image_size)


def _example(task: Task, batch: tuple[Tensor, ...]) -> dict[str, object] | Tensor:
    return {"input_ids": batch[0][:, :-1], "use_cache": False} if task.name == "text" else batch[0]


def _schedule(step: int, config: MetaTrainConfig) -> float:
    """Linear warm-up, then cosine to zero."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    return warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))
