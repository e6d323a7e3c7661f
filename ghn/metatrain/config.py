"""All settings of a meta-training run, in groups; light to import, for ``--help``."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ghn.errors import ConfigError, check_known, check_type
from ghn.options import default_of


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What networks are tried on."""

    images: str = ""
    """Hub id, folder of images, or 'digits'; empty for none."""
    text: str = ""
    """Hub id, folder of texts, or 'python-stdlib'; empty for none."""
    task: str = ""
    """``FILE.py:Name`` of a task of your own (see ``ghn.tasks.Task``), in place of its kind of data."""
    image_size: int = 16
    """Side of the square images, in pixels."""
    grey: float = 0.25
    """Share of the batches of images without colours, so that what is learned serves data without them."""
    sequence_length: int = 64
    """Tokens of a text that a network reads at once."""
    tokenizer: str = "bytes"
    """Tokenizer of the text: 'bytes', a hub id, or a folder; larger vocabularies need a larger ``largest``."""
    text_tokens: int = 2**25
    """Tokens that are read of the text at most."""
    image_batch: int = 64
    """Images that a network sees in an update."""
    text_batch: int = 16
    """Sequences that a network sees in an update."""

    def __post_init__(self) -> None:
        if not self.images and not self.text and not self.task:
            raise ConfigError("nothing to learn from: give images=…, text=…, or both (--images, --text)")
        for name in ("image_size", "sequence_length", "text_tokens", "image_batch", "text_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.grey <= 1:
            raise ConfigError(f"grey is {self.grey}; expected a share from 0 to 1")

    def batch(self, kind: str) -> int:
        """Examples of a kind of data that a network sees in an update."""
        return self.text_batch if kind == "text" else self.image_batch


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Which networks are cut out."""

    space: str = ""
    """``FILE.py:Name`` of a target space of your own (see ``ghn.spaces.TargetSpace``)."""
    networks: int = 1000
    """Architectures of each kind of data; each is traced once for a run."""
    full_every: int = 8
    """Every how many-th network is of the library's full scale, the others of the small one; 0 for none."""
    slow_weight: float = 0.5
    """How often a family of transformers or mixers of images is drawn for each time that a convolutional one is."""
    left_out: tuple[str, ...] = ("resnetv2",)
    """Families that are validated and not trained on."""
    largest: int = 2_000_000
    """Parameters above which a network is left out of training: the tables have to fit into a checkpoint."""
    validation_networks: int = 3
    """Networks of each family that are validated; none of them is trained on."""

    def __post_init__(self) -> None:
        for name in ("networks", "largest", "validation_networks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.full_every < 0 or not self.slow_weight >= 0:
            raise ConfigError(
                f"full_every is {self.full_every}, slow_weight {self.slow_weight}; expected 0 or more"
            )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How tables are changed."""

    updates: int = 10_000
    """Updates of the tables; the budget in target-images is about as many times ``targets`` times the batch."""
    targets: int = 2
    """Networks of an update, shared by all processes."""
    image_lr: float = 4e-2
    """Peak learning rate of the tables of networks that see images."""
    text_lr: float = 2e-2
    """Peak learning rate of the tables of language models."""
    vector_lr: float = 6e-3
    """Peak learning rate of vectors and of the low-rank parts' shares."""
    warmup: int = 200
    """Updates over which the rate rises."""
    decay: float = 0.5
    """Share of the updates, at the end, over which the rate falls linearly to zero."""
    clip_norm: float = 1.0
    """Largest gradient norm of an update."""
    ema: float = 0.99
    """Decay of the averaged tables for each update that touches them; at first less, (n + 1) / (n + 10)."""

    def __post_init__(self) -> None:
        for name in ("updates", "targets"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")
        for name in ("image_lr", "text_lr", "vector_lr", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected more than 0")
        if self.warmup < 0 or not 0 <= self.decay <= 1 or not 0 <= self.ema < 1:
            raise ConfigError(
                f"warmup is {self.warmup}, decay {self.decay}, ema {self.ema}; expected 0 or more, a share from 0 to "
                "1, and a decay of 0 or more and less than 1"
            )

    def schedule(self, update: int) -> float:
        """Factor of the peak rates: linear warm-up, constant, linear decay to zero."""
        left = (self.updates - update) / max(1.0, self.decay * self.updates)
        return min(1.0, (update + 1) / max(1, self.warmup), left)

    def lr(self, kind: str) -> float:
        """Peak rate of the tables of networks for a kind of data."""
        return self.text_lr if kind == "text" else self.image_lr


GROUPS: dict[str, type[Any]] = {"data": DataConfig, "sampling": SamplingConfig, "optimizer": OptimizerConfig}


@dataclass(frozen=True, kw_only=True)
class MetaTrainConfig:
    """What to learn from and how; a resumed run must have the same."""

    data: DataConfig
    """What networks are tried on."""
    sampling: SamplingConfig = SamplingConfig()
    """Which networks are cut out."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How tables are changed."""
    objective: str = "step0"
    """What networks are judged by: step0, after_k, or ``FILE.py:Name`` of your own."""
    objective_settings: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the objective, such as ``{"steps": 8}`` of after_k."""
    rank: int = 0
    """Rank of the slots' factors for kernels; of matrices twice as much. 0 learns the slots' matrices themselves."""
    image_share: float = 0.5
    """Share of the updates on images, where there is text too."""
    validate_every: int = 2000
    """Updates between validations, which also write the averaged tables."""
    save_every: int = 1000
    """Updates between saved states: what a kill costs at most."""
    seed: int = 0
    """Keys everything random."""

    def __post_init__(self) -> None:
        for name in ("validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.rank < 0 or not 0 <= self.seed < 2**31:
            raise ConfigError(
                f"rank is {self.rank}, seed {self.seed}; expected 0 or more, and a seed of less than 2**31"
            )
        if not 0 <= self.image_share <= 1:
            raise ConfigError(f"image_share is {self.image_share}; expected a share from 0 to 1")
        if self.sampling.space and bool(self.data.images) + bool(self.data.text) + bool(self.data.task) > 1:
            raise ConfigError(
                f"space {self.sampling.space!r} is for one kind of data; give one of images, text and task"
            )

    def to_dict(self) -> dict[str, Any]:
        """The settings of all groups as plain values, by their own names."""
        values: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            values |= asdict(value) if entry.name in GROUPS else {entry.name: value}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MetaTrainConfig":
        """Inverse of ``to_dict``, with lists for tuples as JSON has them; what is missing keeps its default.

        Raises:
            ConfigError: If a setting is unknown or out of range.
        """
        kinds: tuple[type[Any], ...] = (*GROUPS.values(), cls)
        entries = {entry.name: entry for kind in kinds for entry in fields(kind) if entry.name not in GROUPS}
        check_known("meta-training", values, entries)
        settings = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        for name, value in settings.items():
            check_type(name, value, default_of(entries[name]))
        chosen: dict[str, Any] = {
            name: kind(
                **{entry.name: settings[entry.name] for entry in fields(kind) if entry.name in settings}
            )
            for name, kind in GROUPS.items()
        }
        own: dict[str, Any] = {
            entry.name: settings[entry.name] for entry in fields(cls) if entry.name in settings
        }
        return cls(**chosen, **own)
