"""Settings of a meta-training run."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ghn.decoder import DecoderConfig
from ghn.errors import ConfigError, check_known, check_type, did_you_mean
from ghn.hypernetwork import GHNConfig
from ghn.spaces import SCALES

OBJECTIVES = ("regression", "trajectory", "after_k", "step0")
"""What a prediction is judged by; see ``ghn.metatrain.objective``."""

INNER_OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("fp32", "bf16")

_COUNTS = (
    "image_size",
    "sequence_length",
    "text_tokens",
    "networks",
    "steps",
    "targets_per_step",
    "bases",
    "held_parameters",
    "repeats",
    "inner_batch_size",
    "save_every",
)
"""Fields that are 1 at least."""

_AMOUNTS = (
    "trust_pace",
    "warmup_steps",
    "image_weight",
    "trust_penalty",
    "image_trust_penalty",
    "parameter_penalty",
)
"""Fields that are 0 at least."""


@dataclass(frozen=True, kw_only=True)
class MetaTrainConfig:
    """What to learn from, for how long, and how; a resumed run must have the same."""

    images: str = "digits"
    """Image data: hub id, folder, or 'digits'; empty for none. Left out beside text, unless ``ghn`` says else."""
    text: str = "python-stdlib"
    """Text data: hub id, folder, or 'python-stdlib'; empty for none."""
    image_size: int = 16
    """Side of the square images, in pixels."""
    sequence_length: int = 64
    """Tokens per text example."""
    tokenizers: tuple[str, ...] = ("bytes",)
    """Of the text, each ``bytes``, a hub id, or a folder; each makes language models of its own vocabulary."""
    text_tokens: int = 2**22
    """Tokens that are read of each text at most."""
    scale: str = "small"
    """Sizes of the architectures: see ``ghn.spaces.SCALES``."""
    networks: int = 2000
    """Architectures that a run draws from, per kind of data. Each is traced once, its graph kept in the run's folder;
    a process keeps up to 4,096 in memory, which take up to 1.6 MB each at scale 'full'."""
    objective: str = "step0"
    """One of ``OBJECTIVES``. With little trust in few tensors this one does as well as those that train their targets,
    for a sixth of the compute; with all tensors, or more trust, what it learns costs later (scripts/LOG.md)."""
    steps: int = 1600
    """Updates of the hypernetwork."""
    targets_per_step: int = 2
    """Targets whose losses are averaged in one update, shared by all processes."""
    bases: int = 1
    """How many consecutive targets share an architecture, each with a random base, data order and rate of its own."""
    held_parameters: int = 2**26
    """Predicted numbers that a process holds at once: more targets are learned from one group after another. With
    ``repeats``, the weights that all its targets of an update had and reached are kept besides."""
    lr: float = 4e-3
    """Peak learning rate of the hypernetwork (AdamW, cosine)."""
    trust_pace: float = 0.3
    """Share of it at which trust is learned: before there are directions worth following, every gradient asks for less
    trust, and at the full rate it can reach zero, where nothing is learned any more."""
    warmup_steps: int = 20
    """Updates over which the learning rate rises."""
    clip_norm: float = 1.0
    """Largest gradient norm of an update."""
    ema: float = 0.98
    """Decay per update of the averaged weights, which are what is saved; at first less, (n + 1) / (n + 10)."""
    repeats: int = 1
    """Updates on the same adapted targets, each predicted anew; for 'regression' alone."""
    inner_steps: tuple[int, int] = (16, 64)
    """Range of the number of training steps given to a target; drawn log-uniformly."""
    inner_lr: tuple[float, float] = (1e-3, 4e-3)
    """Range of a target's peak learning rate; drawn log-uniformly."""
    inner_batch_size: int = 16
    """Examples per training step of a target."""
    inner_optimizer: str = "adamw"
    """'adamw' or 'sgd' (momentum 0.9)."""
    image_weight: float = 0.05
    """Factor on the losses of networks that see images, where there is text too: images teach little, and with
    more weight their gradient hides what texts teach (scripts/LOG.md, "images beside texts")."""
    trust_penalty: float = 1e-3
    """Pull of every trust towards zero: nothing is changed without evidence."""
    image_trust_penalty: float = 0.3
    """The same for networks that see images: what these learn in short trainings costs accuracy in longer ones. It
    matters with a decoder that may trust far more than the default one."""
    parameter_penalty: float = 0.0
    """Pull of predicted parameters towards zero (mean square per tensor), as GHN-3 has it."""
    balance: bool = True
    """Divide each kind of data's losses by their running mean, so that none drowns the others."""
    precision: str = "fp32"
    """'fp32', or 'bf16' for the targets' forward and backward passes; the hypernetwork stays in fp32."""
    save_every: int = 10
    """Updates between saved states."""
    seed: int = 0
    """Keys architectures, data order, bases and the hypernetwork's own start."""
    ghn: GHNConfig = None  # type: ignore[assignment]
    """The hypernetwork; None is the default one, whose decoder's scope is 'tokens' if there is text, else 'edges', once
    and for all: half of the updates would be spent on images, and what they teach has not been seen to last."""

    def __post_init__(self) -> None:
        if not self.images and not self.text:
            raise ConfigError("nothing to learn from: give images=…, text=… or both")
        if self.ghn is None:
            object.__setattr__(self, "ghn", GHNConfig(decoder=DecoderConfig(scope=_scope(self.text))))
        if not self.text and not self.learns_from_images:
            raise ConfigError(
                "nothing to learn from: with scope 'tokens' images teach nothing; give text=…, or scope 'edges'"
            )
        for name, known in (
            ("objective", OBJECTIVES),
            ("scale", SCALES),
            ("inner_optimizer", INNER_OPTIMIZERS),
            ("precision", PRECISIONS),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(
                    f"unknown {name} {value!r}; expected one of {', '.join(known)}.{did_you_mean(value, known)}"
                )
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")
        for name in _AMOUNTS:
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if not 0 < self.clip_norm < math.inf:
            raise ConfigError(f"clip_norm is {self.clip_norm}; expected more than 0")
        for name in ("inner_steps", "inner_lr"):
            if len(getattr(self, name)) != 2:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected two numbers, from and to")
        low, high = self.inner_steps
        if not 1 <= low <= high:
            raise ConfigError(f"inner_steps is {low}, {high}; expected a range of positive numbers")
        if self.targets_per_step % self.bases:
            raise ConfigError(
                f"targets_per_step={self.targets_per_step} can't be filled with {self.bases} bases of each "
                "architecture; use a multiple"
            )
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed is {self.seed}; expected 0 or more, and less than 2**31")
        if not 0 < self.inner_lr[0] <= self.inner_lr[1] or not self.lr > 0 or not 0 <= self.ema < 1:
            raise ConfigError(
                f"expected positive learning rates and ema in [0, 1); got inner_lr={self.inner_lr}, lr={self.lr}, "
                f"ema={self.ema}"
            )
        if self.repeats > 1 and self.objective != "regression":
            raise ConfigError(
                f"repeats={self.repeats} needs objective='regression': the gradients that {self.objective!r} learns "
                "from hold only where they were taken"
            )
        if self.text and not self.tokenizers:
            raise ConfigError("text needs a tokenizer; give tokenizers=('bytes',)")
        if not self.text and self.tokenizers != ("bytes",):
            raise ConfigError(
                f"tokenizers={self.tokenizers} have no text to read; give text=… or leave them out"
            )

    @property
    def learns_from_images(self) -> bool:
        """Whether anything can be learned from them; if not, they are not even read."""
        return bool(self.images) and self.ghn.decoder.scope != "tokens"

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MetaTrainConfig":
        """Inverse of ``to_dict``, with lists for tuples as JSON has them; what is missing keeps its default.

        Raises:
            ConfigError: If a setting is unknown or out of range.
        """
        check_known("meta-training", values, {entry.name for entry in fields(cls)})
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        default = cls()
        if given.get("ghn", default) is None:
            del given["ghn"]
        if isinstance(given.get("ghn"), Mapping):
            decoder = given["ghn"].get("decoder", {})
            if isinstance(decoder, Mapping):
                decoder = {"scope": _scope(given.get("text", default.text)), **decoder}
            given["ghn"] = GHNConfig.from_dict({**given["ghn"], "decoder": decoder})
        for key, value in given.items():
            check_type(key, value, getattr(default, key))
        return cls(**given)


def _scope(text: str) -> str:
    """What of a hypernetwork is learned, if nobody says."""
    return "tokens" if text else "edges"
