"""What an evaluation is asked to do, in groups: a function takes the group that it uses. Each field is an option."""

import fnmatch
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ghn.apply.rules import own_rules
from ghn.arms import arm_of, needs_checkpoint
from ghn.base import registered
from ghn.data.text import load_tokenizer
from ghn.errors import ConfigError, check_known, check_type
from ghn.finetune.config import CompareConfig
from ghn.spaces import Architecture, held_out
from ghn.tensors import count_parameters

SOURCES = ("images", "text", "transfer_images", "transfer_text")
"""Settings that name data; a folder's later calls may leave some out, or add some."""
ARMS = ("arms", "transfer_arms")
"""Settings that name arms, likewise."""


@dataclass(frozen=True, kw_only=True)
class HeldOutConfig:
    """Which networks and data."""

    images: str = "uoft-cs/cifar10"
    """Images of the kind that the hypernetwork has seen; '' for none."""
    text: str = "Salesforce/wikitext:wikitext-2-raw-v1"
    """Text of the kind that it has seen; '' for none."""
    transfer_images: str = "digits"
    """Unseen images, for a shorter budget and the arms of --transfer-inits alone; '' for none."""
    transfer_text: str = "python-stdlib"
    """Unseen text, likewise; '' for none."""
    tokenizer: str | None = None
    """Tokenizer of all text; bytes by default."""
    image_size: int = 16
    """Side of the images, in pixels."""
    sequence_length: int = 64
    """Tokens per text example."""
    max_parameters: int = 6_000_000
    """Larger models of the list are left out."""

    def __post_init__(self) -> None:
        for main, other in ((self.images, self.transfer_images), (self.text, self.transfer_text)):
            if main and other and short_name(main) == short_name(other):
                raise ConfigError(
                    f"{main!r} and {other!r} have the same name, by which results are told apart; transfer to other "
                    "data"
                )


@dataclass(frozen=True, kw_only=True)
class ArmsConfig:
    """Arms × seeds × learning rates."""

    checkpoint: str | None = None
    """Hypernetwork of the arms ghn and base; the shipped one by default."""
    arms: tuple[str, ...] = ("random", "ghn", "base", "orthogonal", "mimetic")
    """Arms as in ghn compare; all are compared with random."""
    transfer_arms: tuple[str, ...] = ("random", "ghn")
    """Arms on unseen data."""
    rules: tuple[str, ...] = ()
    """Your own rules, which ghn and base follow before others."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each seeds construction, initialization and data order of one run per arm; the first also tunes."""
    lr: tuple[float, ...] = (6e-5, 2e-4, 6e-4, 2e-3, 6e-3, 2e-2, 6e-2)
    """Grid of peak learning rates: with the first seed, each arm runs three from the middle of the grid, then the next
    one while the best is an outermost one; the other seeds run at the best."""

    def __post_init__(self) -> None:
        with registered(*own_rules(self.rules)):
            for name in (*self.arms, *self.transfer_arms):
                arm_of(name)
        if "random" not in self.arms or "random" not in self.transfer_arms:
            raise ConfigError("every arm is compared with 'random'; add it to the arms")


@dataclass(frozen=True, kw_only=True)
class BudgetsConfig:
    """What every run may spend."""

    image_batch: int = 32
    """Images per step."""
    text_batch: int = 8
    """Texts per step."""
    steps: int = 480
    """Steps of a run; it is evaluated at every tenth part."""
    transfer_steps: int = 60
    """Steps of a run on unseen data."""
    eval_samples: int = 1000
    """Images of each evaluation; a quarter as many texts, which hold many predictions each."""

    def __post_init__(self) -> None:
        if self.eval_samples < 1:
            raise ConfigError(f"eval_samples is {self.eval_samples}; expected 1 or more")
        for steps in (self.steps, self.transfer_steps):
            if steps < 1 or steps % 10:
                raise ConfigError(
                    f"tenths of the budget are reported; expected a multiple of 10, got {steps} steps"
                )


_GROUPS = (HeldOutConfig, ArmsConfig, BudgetsConfig)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(HeldOutConfig, ArmsConfig, BudgetsConfig):
    """Held-out architectures × data sets × arms × seeds."""

    optimizer: str = "adamw"
    """Optimizer as in ghn compare; sgd needs larger rates than the grid of the presets has."""
    precision: str = "fp32"
    """Precision as in ghn compare."""
    device: str = "auto"
    """Where to run, as in ghn compare."""

    def __post_init__(self) -> None:
        for group in _GROUPS:
            group.__post_init__(self)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "EvaluateConfig":
        """A preset with changes; None changes nothing, and lists are taken for tuples.

        Raises:
            ConfigError: If there is none of that name, or a change is unknown or of another type.
        """
        if name not in PRESETS:
            raise ConfigError(f"unknown preset {name!r}; expected one of {', '.join(PRESETS)}")
        preset = PRESETS[name]
        check_known("an evaluation", changes, vars(preset))
        settings: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in changes.items()
            if value is not None
        }
        for key, value in settings.items():
            check_type(key, value, getattr(preset, key))
        return replace(preset, **settings)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values; of folders the name alone, which means something elsewhere too."""
        values: dict[str, Any] = {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()
        }
        return values | {name: short_name(values[name]) for name in (*SOURCES, "tokenizer", "checkpoint")}


def short_name(source: str | None) -> str | None:
    """Name of a data set or checkpoint for results: that of a folder without the path to it."""
    return source and (Path(source).name if Path(source).is_dir() else source)


CLASSES = 10
"""Classes that image models are sized with before any data is read: CIFAR-10's."""

PRESETS = {
    "cpu": EvaluateConfig(),
    "gpu": EvaluateConfig(
        lr=(3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
        image_size=32,
        sequence_length=128,
        image_batch=128,
        text_batch=32,
        steps=2000,
        transfer_steps=400,
        eval_samples=10_000,
        max_parameters=10**12,
        precision="bf16",
    ),
}
"""'cpu' takes about five hours on two cores in two processes, for 20 models of the list and all five arms, or about
four if nothing else runs on them; with up to 30,000,000 parameters it is all 29, for about eleven (sums of the times in
benchmarks/results/held-out-cpu; arms of equal weights are trained once). 'gpu' has whole images and longer budgets."""


@dataclass(frozen=True)
class Case:
    """One architecture on one data set."""

    architecture: Architecture
    dataset: str
    transfer: bool

    @property
    def name(self) -> str:
        """Unique in the held-out list, and short: family, depth and width."""
        shape = self.architecture
        return f"{shape.family}-{shape.depth}x{shape.width}"

    @property
    def data(self) -> str:
        """Name of the data set for results."""
        return short_name(self.dataset) or ""

    @property
    def task(self) -> str:
        """'images' or 'text'."""
        return self.architecture.task


def cases(config: HeldOutConfig, pattern: str = "*", limit: int | None = None) -> list[Case]:
    """The cases of an evaluation, smallest architectures first, all data sets of one after the other.

    Args:
        config: Networks and data.
        pattern: Shell pattern that the case's name must match.
        limit: At most this many architectures.

    Raises:
        ConfigError: If the pattern matches nothing, or there is no data for what it matches.
    """
    candidates = _by_size(
        config.image_size, config.sequence_length, len(load_tokenizer(config.tokenizer or "bytes"))
    )
    architectures = [
        architecture for parameters, architecture in candidates if parameters <= config.max_parameters
    ]
    entries = [(Case(architecture, "", False).name, architecture) for architecture in architectures]
    matches = [architecture for name, architecture in entries if fnmatch.fnmatch(name, pattern)]
    if not matches:
        raise ConfigError(f"no model matches {pattern!r}; there are {', '.join(name for name, _ in entries)}")
    selection = [
        Case(architecture, dataset, transfer)
        for architecture in matches[:limit]
        for dataset, transfer in _datasets(config, architecture.task)
        if dataset
    ]
    if not selection:
        raise ConfigError(f"there is nothing to evaluate {pattern!r} on; give images or text")
    return selection


@lru_cache(maxsize=4)
def _by_size(image_size: int, sequence_length: int, vocabulary: int) -> list[tuple[int, Architecture]]:
    """The held-out list with numbers of parameters, smallest first."""
    entries = []
    for architecture in held_out(image_size, sequence_length, vocabulary):
        classes = {"num_classes": CLASSES} if architecture.task == "images" else {}
        model = architecture.build(device="meta", **classes)
        entries.append((count_parameters(model), architecture))
    return sorted(entries, key=lambda entry: entry[0])


def _datasets(config: HeldOutConfig, task: str) -> tuple[tuple[str, bool], tuple[str, bool]]:
    if task == "text":
        return (config.text, False), (config.transfer_text, True)
    return (config.images, False), (config.transfer_images, True)


def comparison(config: EvaluateConfig, case: Case, arm: str, folder: str) -> CompareConfig:
    """Settings of one arm's runs for ``ghn.finetune``."""
    text = case.task == "text"
    steps = config.transfer_steps if case.transfer else config.steps
    return CompareConfig(
        model=case.architecture.spec,
        model_kwargs=case.architecture.kwargs,
        dataset=case.dataset,
        image_size=None if text else config.image_size,
        sequence_length=config.sequence_length if text else None,
        tokenizer=config.tokenizer if text else None,
        checkpoint=config.checkpoint if needs_checkpoint(arm) else None,
        inits=(arm,),
        rules=config.rules if needs_checkpoint(arm) else (),
        seeds=config.seeds,
        lr=config.lr,
        steps=steps,
        batch_size=config.text_batch if text else config.image_batch,
        eval_every=max(1, steps // 10),
        eval_samples=max(1, config.eval_samples // 4) if text else config.eval_samples,
        optimizer=config.optimizer,
        precision=config.precision,
        device=config.device,
        output_dir=folder,
        resume=True,
    )
