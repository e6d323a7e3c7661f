"""What a comparison is asked to do."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ghn.errors import ConfigError, did_you_mean

OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("fp32", "bf16", "fp16")

_HOW_IT_RUNS = ("output_dir", "resume", "num_workers")
"""Fields that don't change results, so that a resumed comparison may change them."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Arms × seeds × learning rates on one model and one data set."""

    model: str | None = None
    """Specification for ``ghn.load_model``; None chooses a small one for the data set."""
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the model, over those that the data set implies."""
    image_size: int | None = None
    """Height and width in pixels; None is the size of small images, the model's own for others."""
    sequence_length: int | None = None
    """Tokens that a language model reads at once; None is 128."""
    tokenizer: str | None = None
    """``bytes``, a hub id, or a folder; None is ``bytes``."""
    checkpoint: str | None = None
    """Hypernetwork of the arms ``ghn`` and ``base``; None is the shipped one."""
    dataset: str | None = None
    """``digits``, ``python-stdlib``, a hub id or a folder; None fits the model."""
    inits: tuple[str, ...] = ("ghn", "random")
    """Arms to compare, names that ``ghn.apply.baselines.arm_of`` takes."""
    rules: tuple[str, ...] = ()
    """Rules of your own that the arms ``ghn`` and ``base`` follow before all others, as ``package.module:Name``."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each seeds construction, initialization, data order, augmentation and dropout of one run per arm and rate."""
    steps: int | None = None
    """Optimizer steps of a run; None is 100, unless ``epochs`` is given."""
    epochs: float | None = None
    """Passes over the training split, in place of ``steps``."""
    batch_size: int | None = None
    """Examples per step, over all processes; None is 64 images or 16 sequences."""
    lr: tuple[float, ...] = (1e-3, 3e-3)
    """Grid of peak learning rates: every arm runs all of them, and its summary is that of its best."""
    optimizer: str = "adamw"
    """``adamw`` or ``sgd`` (with momentum 0.9)."""
    weight_decay: float = 0.05
    """Of matrices; vectors and scalars have none."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises linearly, before it falls along a cosine."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 doesn't clip."""
    precision: str = "fp32"
    """``fp32``, or ``bf16`` or ``fp16`` for automatic mixed precision."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    compile: bool = False
    """Whether ``torch.compile`` compiles the model."""
    augment: bool = True
    """Whether training images are shifted at random and, where the data set allows it, mirrored."""
    eval_every: int | None = None
    """Steps between evaluations; None gives 10 in a run."""
    eval_samples: int | None = None
    """Examples of the evaluation split that are used, evenly spaced; None is 2,000 images or 128 sequences."""
    num_workers: int = 0
    """Processes that decode images of data sets that don't fit in memory."""
    output_dir: str | None = None
    """Where results go; None is a new folder in ``runs``."""
    resume: bool = False
    """Continue what an interrupted comparison left in ``output_dir``."""

    def __post_init__(self) -> None:
        # They import torch, which the command line's --help does without.
        from ghn.apply.baselines import arm_of
        from ghn.apply.rules import own_rules
        from ghn.base import registered

        with registered(*own_rules(self.rules)):
            for name in self.inits:
                arm_of(name)
        for option, choices in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
            value = getattr(self, option)
            if value not in choices:
                raise ConfigError(
                    f"unknown --{option} {value!r}; expected one of {', '.join(choices)}.{did_you_mean(value, choices)}"
                )
        if self.steps is not None and self.epochs is not None:
            raise ConfigError(
                f"got --steps {self.steps} and --epochs {self.epochs}: give one of them, the other follows"
            )
        for option in ("inits", "seeds", "lr"):
            values = getattr(self, option)
            if not values:
                raise ConfigError(f"--{option} is empty; give one value or more")
            if len(set(values)) < len(values):
                raise ConfigError(f"--{option} {' '.join(map(str, values))} repeats a value; give each once")
        for option in (
            "image_size",
            "sequence_length",
            "steps",
            "epochs",
            "batch_size",
            "eval_every",
            "eval_samples",
        ):
            value = getattr(self, option)
            if value is not None and not value > 0:
                raise ConfigError(f"--{_flag(option)} is {value}; expected more than 0")
        for option in ("weight_decay", "clip", "num_workers"):
            if not getattr(self, option) >= 0:
                raise ConfigError(f"--{_flag(option)} is {getattr(self, option)}; expected 0 or more")
        for rate in self.lr:
            if not 0 < rate < float("inf"):
                raise ConfigError(f"--lr holds {rate}; expected more than 0, such as 1e-3")
        for seed in self.seeds:
            if not 0 <= seed < 2**31:
                raise ConfigError(f"--seeds holds {seed}; expected 0 or more, and less than 2**31")
        if not 0 <= self.warmup < 1:
            raise ConfigError(
                f"--warmup is {self.warmup}; expected a share of the steps, at least 0 and less than 1"
            )
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


def _flag(field_name: str) -> str:
    return field_name.replace("_", "-")
