"""What a comparison is asked to do, in groups: a function takes the group that it uses. Each field is an option."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ghn.errors import ConfigError, did_you_mean

OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("fp32", "bf16", "fp16")

_HOW_IT_RUNS = ("output_dir", "resume", "num_workers")
"""Fields that don't change results, so that a resumed comparison may change them."""


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The model, and the data that it is trained on."""

    model: str | None = None
    """Model: timm:NAME, torchvision:NAME, hf:TYPE (or a hub id, folder, config.json) or python:FILE.py:FACTORY; a small
    one of the data set's kind by default."""
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the model, over those that the data set implies, like '{"depth": 6}'."""
    dataset: str | None = None
    """Data: digits or python-stdlib (both offline), a hub id (ID:CONFIGURATION), or a folder; what fits the model by
    default."""
    task: str | None = None
    """A task of your own (see ghn.tasks.Task), in place of the data set."""
    image_size: int | None = None
    """Height and width in pixels; small images keep theirs (32 at least) by default, large get the model's."""
    sequence_length: int | None = None
    """Tokens a language model reads at once; 128 by default."""
    tokenizer: str | None = None
    """Tokenizer of a language model; bytes by default."""

    def __post_init__(self) -> None:
        _check_positive(self, "image_size", "sequence_length")


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """Arms × seeds × learning rates."""

    inits: tuple[str, ...] = ("ghn", "random")
    """Arms: ghn, base (the hypernetwork untrained), random, orthogonal, mimetic; ghn and base also without rules, as
    base-without-RULE+RULE."""
    rules: tuple[str, ...] = ()
    """Your own rules, which ghn and base follow before others."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run of each arm per seed, which keys construction, initialization, data order, augmentation and dropout."""
    lr: tuple[float, ...] = (1e-3, 3e-3)
    """Grid of peak learning rates; each arm is reported at its own best."""

    def __post_init__(self) -> None:
        # They import torch, which the command line's --help does without.
        from ghn.apply.rules import own_rules
        from ghn.arms import arm_of
        from ghn.base import registered

        with registered(*own_rules(self.rules)):
            for name in self.inits:
                arm_of(name)
        for option in ("inits", "seeds", "lr"):
            values = getattr(self, option)
            if not values:
                raise ConfigError(f"--{option} is empty; give one value or more")
            if len(set(values)) < len(values):
                raise ConfigError(f"--{option} {' '.join(map(str, values))} repeats a value; give each once")
        for rate in self.lr:
            if not 0 < rate < float("inf"):
                raise ConfigError(f"--lr holds {rate}; expected more than 0, such as 1e-3")
        for seed in self.seeds:
            if not 0 <= seed < 2**31:
                raise ConfigError(f"--seeds holds {seed}; expected 0 or more, and less than 2**31")


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """What every run may spend."""

    steps: int | None = None
    """Steps per run; 100 by default."""
    epochs: float | None = None
    """Passes over the training data, in place of --steps."""
    batch_size: int | None = None
    """Examples per step, over all processes; 64 images or 16 sequences by default."""
    eval_every: int | None = None
    """Steps between evaluations; a tenth of all by default."""
    eval_samples: int | None = None
    """Examples to evaluate on, evenly spaced; 2000 images or 128 sequences by default."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise ConfigError(
                f"got --steps {self.steps} and --epochs {self.epochs}: give one of them, the other follows"
            )
        _check_positive(self, "steps", "epochs", "batch_size", "eval_every", "eval_samples")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How one run goes, whatever its arm, seed and rate."""

    checkpoint: str | None = None
    """Hypernetwork of the arms ghn and base; the shipped one by default."""
    optimizer: str = "adamw"
    """Optimizer: adamw, or sgd with momentum 0.9."""
    weight_decay: float = 0.05
    """Weight decay of matrices; vectors have none."""
    warmup: float = 0.1
    """Share of the steps in which the rate rises, before it falls along a cosine."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 doesn't clip."""
    augment: bool = True
    """Shift (and mirror, where the data allow it) training images at random."""
    num_workers: int = 0
    """Processes that decode images which don't fit in memory."""

    def __post_init__(self) -> None:
        _check_choice(self, "optimizer", OPTIMIZERS)
        for option in ("weight_decay", "clip", "num_workers"):
            if not getattr(self, option) >= 0:
                raise ConfigError(f"--{_flag(option)} is {getattr(self, option)}; expected 0 or more")
        if not 0 <= self.warmup < 1:
            raise ConfigError(
                f"--warmup is {self.warmup}; expected a share of the steps, at least 0 and less than 1"
            )


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """Where runs go, and how numbers are kept there."""

    precision: str = "fp32"
    """Precision: fp32, or bf16 or fp16 for automatic mixed precision."""
    device: str = "auto"
    """Where to run: auto, cpu, cuda, cuda:N or mps."""
    compile: bool = False
    """Compile the model with torch.compile."""

    def __post_init__(self) -> None:
        _check_choice(self, "precision", PRECISIONS)


GROUPS = (TaskConfig, GridConfig, BudgetConfig, RunConfig, DeviceConfig)


@dataclass(frozen=True, kw_only=True)
class CompareConfig(TaskConfig, GridConfig, BudgetConfig, RunConfig, DeviceConfig):
    """Arms × seeds × learning rates on one model and one data set."""

    output_dir: str | None = None
    """Where results go; a new folder in runs by default."""
    resume: bool = False
    """Continue the comparison in --output-dir."""

    def __post_init__(self) -> None:
        for group in GROUPS:
            group.__post_init__(self)
        if self.resume and self.output_dir is None:
            raise ConfigError("--resume needs --output-dir: the folder of the interrupted comparison")

    def identity(self) -> dict[str, Any]:
        """Everything that results depend on, as plain JSON values."""
        values = asdict(self)
        return {
            entry.name: list(value) if isinstance(value := values[entry.name], tuple) else value
            for entry in fields(self)
            if entry.name not in _HOW_IT_RUNS
        }


def _check_positive(config: object, *options: str) -> None:
    for option in options:
        value = getattr(config, option)
        if value is not None and not value > 0:
            raise ConfigError(f"--{_flag(option)} is {value}; expected more than 0")


def _check_choice(config: object, option: str, choices: tuple[str, ...]) -> None:
    value = getattr(config, option)
    if value not in choices:
        raise ConfigError(
            f"unknown --{option} {value!r}; expected one of {', '.join(choices)}.{did_you_mean(value, choices)}"
        )


def _flag(field_name: str) -> str:
    return field_name.replace("_", "-")
