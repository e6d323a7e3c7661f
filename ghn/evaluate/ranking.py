"""Networks to rank before training: sampled, trained from their own start, and judged by their untrained loss."""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, zip_longest
from statistics import fmean
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from torch import nn

from ghn.arms import Arm, ArmSettings, base_, ghn_, random_
from ghn.console import counted, progress_bar
from ghn.data.load import load_images
from ghn.data.order import evaluation_batches
from ghn.environment import commit, machine, versions
from ghn.errors import ConfigError
from ghn.evaluate.config import short_name
from ghn.finetune.config import DeviceConfig, RunConfig
from ghn.finetune.loop import Budget, make_accelerator, train_run
from ghn.finetune.own_task import OwnTask
from ghn.finetune.run import best_runs
from ghn.finetune.run_folder import RunFolder
from ghn.spaces import Architecture, ImageSpace
from ghn.tasks import ImageClassification, Task, call, mean_loss
from ghn.tensors import count_parameters

TRAINED = "trained.csv"
"""A row for each network, as it was trained."""

SETTINGS = "trained.json"
"""Settings that all rows of ``TRAINED`` have in common, with commit, versions and machine."""

DRAWS = 4000
"""Networks among which those of each family are looked for."""

EXAMPLES, AT_ONCE = 1000, 250
"""Evaluation images that a network is judged on before training, and how many share their statistics."""

STARTS: Mapping[str, Arm] = {"ghn": partial(ghn_, learned="all"), "base": base_, "random": random_}
"""Arms that networks are judged under before training."""


@dataclass(frozen=True, kw_only=True)
class RankingConfig:
    """Which networks, and how each is trained."""

    images: str = "uoft-cs/cifar10"
    """Images, as the hypernetwork has seen them."""
    image_size: int = 16
    """Side of the images, in pixels."""
    scale: str = "small"
    """Scale of the sampled networks: small or full."""
    networks: int = 64
    """Networks, as many of each family as there are."""
    max_parameters: int = 1_000_000
    """Larger networks are left out."""
    lr: tuple[float, ...] = (2e-3, 6e-3)
    """Peak learning rates; the best one of each network counts."""
    steps: int = 200
    """Steps of a training from the network's own start."""
    batch_size: int = 64
    """Images per step."""
    eval_samples: int = 2000
    """Images to evaluate on after training."""

    def __post_init__(self) -> None:
        for name in ("networks", "max_parameters", "steps", "batch_size", "eval_samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if not self.lr or min(self.lr) <= 0:
            raise ConfigError(f"lr is {self.lr}; expected one rate or more, above 0")

    def task(self) -> Task:
        """The images."""
        return ImageClassification(load_images(self.images).fit(self.image_size, 3))

    def common(self) -> dict[str, Any]:
        """Settings that all networks of a folder have in common, as plain values."""
        values = {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()
        }
        del values["networks"]
        return values | {"images": short_name(self.images)}


def sample_networks(config: RankingConfig, **arguments: Any) -> Iterator[tuple[Architecture, int]]:
    """Different networks with their numbers of parameters, one of each family after the other.

    Their draws are keyed unlike those of meta-training; of families with few networks both may still draw the same one.

    Args:
        config: Which networks.
        arguments: Arguments of every network, such as the number of classes.
    """
    space = ImageSpace(scale=config.scale, image_size=config.image_size)
    families: dict[str, dict[str, Architecture]] = {}
    for number in range(DRAWS):
        architecture = space.sample(random.Random(f"ranking/{number}"))
        families.setdefault(architecture.family, {}).setdefault(architecture.key, architecture)

    def small_ones(family: str) -> Iterator[tuple[Architecture, int]]:
        for architecture in families[family].values():
            model = architecture.build(device="meta", **arguments)
            parameters = count_parameters(model)
            if parameters <= config.max_parameters:
                yield architecture, parameters

    rounds = zip_longest(*map(small_ones, sorted(families)))
    return filter(None, chain.from_iterable(rounds))


def train_networks(config: RankingConfig, folder: RunFolder) -> pd.DataFrame:
    """Train networks until the folder has as many as are asked for; each is kept as soon as it is done.

    Args:
        config: Which networks, and how.
        folder: An existing folder.

    Returns:
        A row for each: ``family``, ``spec``, ``kwargs`` (JSON), ``depth``, ``width``, ``parameters``, the best ``lr``,
        ``loss`` and ``accuracy`` at its end (nothing if every training diverged), ``seconds`` of all trainings, and the
        ``commit`` of the library.

    Raises:
        ConfigError: If the folder's networks were trained with other settings, or there are not enough networks.
        DataError: If there are no such images.
    """
    _check_settings(config, folder)
    path = folder.path / TRAINED
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    keys = {(row["spec"], row["kwargs"]) for row in rows}
    missing = config.networks - len(rows)
    if missing <= 0:
        return pd.DataFrame(rows)[: config.networks]
    task, accelerator = config.task(), make_accelerator(DeviceConfig())
    with progress_bar(*counted("networks")) as bar:
        progress = bar.add_task("training", total=missing)
        others = (
            (architecture, parameters)
            for architecture, parameters in sample_networks(config, **task.arguments)
            if (architecture.spec, kwargs_json(architecture)) not in keys
        )
        for architecture, parameters in islice(others, missing):
            rows.append(_train(config, task, accelerator, architecture, parameters))
            folder.write(TRAINED, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))
            bar.advance(progress)
    if len(rows) < config.networks:
        raise ConfigError(
            f"there are {len(rows)} different networks of at most {config.max_parameters:,} parameters among "
            f"{DRAWS}; ask for no more, or for larger ones"
        )
    return pd.DataFrame(rows)


def _check_settings(config: RankingConfig, folder: RunFolder) -> None:
    before = folder.read(SETTINGS, "delete it, if its networks were trained with these settings").get(
        "config", {}
    )
    now = config.common()
    for name, value in before.items():
        if now[name] != value:
            raise ConfigError(
                f"{folder.path} holds networks trained with {name}={value}, now it is {now[name]}; repeat the first "
                "command's options, or choose another output folder"
            )
    if not before:
        record = {"config": now, "commit": commit(), "versions": versions(), "machine": machine()}
        folder.write_json(SETTINGS, record)


def _train(
    config: RankingConfig, images: Task, accelerator: Accelerator, architecture: Architecture, parameters: int
) -> dict[str, Any]:
    task = OwnTask(images, config.images, architecture.spec, architecture.kwargs)
    budget = Budget(
        steps=config.steps,
        batch_size=config.batch_size,
        eval_every=config.steps,
        eval_samples=config.eval_samples,
    )
    runs = [train_run(task, RunConfig(), budget, accelerator, "random", 0, rate) for rate in config.lr]
    best = best_runs(runs, "random")[0]
    return {
        "family": architecture.family,
        "spec": architecture.spec,
        "kwargs": kwargs_json(architecture),
        "depth": architecture.depth,
        "width": architecture.width,
        "parameters": parameters,
        "lr": best.lr,
        "loss": getattr(best.final, "loss", None),
        "accuracy": getattr(best.final, "metric", None),
        "seconds": sum(run.train_seconds for run in runs),
        "commit": best.commit,
    }


def judge_networks(
    config: RankingConfig, networks: pd.DataFrame, checkpoint: str | None, seeds: tuple[int, ...] = (0, 1)
) -> pd.DataFrame:
    """Loss and accuracy before training, under batch statistics, as means over seeds.

    Args:
        config: On which images.
        networks: From ``train_networks``.
        checkpoint: Hypernetwork; None is the one that ships.
        seeds: Each seeds a construction and an initialization.

    Returns:
        A row for each network: ``family``, and ``loss_ghn``, ``accuracy_ghn`` and so on for each of ``STARTS``.

    Raises:
        CheckpointError: If the hypernetwork can't be loaded.
        DataError: If there are no such images.
    """
    images = config.task()
    rows = []
    with progress_bar(*counted("networks")) as bar:
        progress = bar.add_task("judging", total=len(networks))
        for network in networks.to_dict("records"):
            task = OwnTask(images, config.images, network["spec"], json.loads(network["kwargs"]))
            row = {"family": network["family"]}
            for name, arm in STARTS.items():
                figures = [_before_training(task, arm, seed, checkpoint) for seed in seeds]
                row |= {f"loss_{name}": fmean(loss for loss, _ in figures)}
                row |= {f"accuracy_{name}": fmean(accuracy for _, accuracy in figures)}
            rows.append(row)
            bar.advance(progress)
    return pd.DataFrame(rows)


@torch.no_grad()
def _before_training(task: OwnTask, arm: Arm, seed: int, checkpoint: str | None) -> tuple[float, float]:
    """Mean loss in nats, and share of right predictions."""
    model: nn.Module = task.build(seed)
    arm(model, ArmSettings(seed=seed, inputs=task.example(), checkpoint=checkpoint))
    model.train()
    return mean_loss(task, evaluation_batches(task.evaluation, AT_ONCE, EXAMPLES), partial(call, model))


def kwargs_json(architecture: Architecture) -> str:
    """The arguments of a network as a cell of a table."""
    return json.dumps(architecture.kwargs, sort_keys=True)
