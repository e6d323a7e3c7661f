"""Settings of a meta-training run."""

from dataclasses import asdict, dataclass, field
from typing import Any

from ghn.errors import ConfigError
from ghn.hypernetwork import GHNConfig


@dataclass(frozen=True, kw_only=True)
class MetaTrainConfig:
    """What to learn from, for how long, and how; a resumed run must have the same."""

    images: str = "digits"
    """Image data: hub id, folder, or 'digits'; empty for none."""
    text: str = "python-stdlib"
    """Text data: hub id, folder, or 'python-stdlib'; empty for none."""
    image_size: int = 16
    """Side of the square images, in pixels."""
    sequence_length: int = 64
    """Tokens (bytes) per text example."""
    steps: int = 300
    """Updates of the hypernetwork."""
    targets_per_step: int = 2
    """Architectures whose losses are averaged in one update."""
    lr: float = 2e-3
    """Peak learning rate of the hypernetwork (AdamW, cosine)."""
    warmup_steps: int = 20
    """Updates over which the learning rate rises."""
    clip_norm: float = 1.0
    """Largest gradient norm of an update."""
    ema: float = 0.98
    """Decay per update of the averaged weights, which are what is saved."""
    inner_steps: tuple[int, int] = (8, 48)
    """Range of the number of training steps given to a target; drawn log-uniformly."""
    inner_lr: tuple[float, float] = (1e-3, 4e-3)
    """Range of a target's learning rate (AdamW); drawn log-uniformly."""
    inner_batch_size: int = 16
    """Examples per training step of a target."""
    trust_penalty: float = 1e-3
    """Pull of every trust towards zero: nothing is changed without evidence."""
    save_every: int = 10
    """Updates between saved states."""
    seed: int = 0
    """Keys architectures, data order, bases and the hypernetwork's own start."""
    ghn: GHNConfig = field(default_factory=GHNConfig)
    """The hypernetwork."""

    def __post_init__(self) -> None:
        if not self.images and not self.text:
            raise ConfigError("nothing to learn from: give images=…, text=… or both")
        low, high = self.inner_steps
        if (
            min(self.steps, self.targets_per_step, self.inner_batch_size, self.save_every, low) < 1
            or low > high
        ):
            raise ConfigError(f"steps, sizes and ranges must be positive and ordered; got {self}")
        if not 0 < self.inner_lr[0] <= self.inner_lr[1] or self.lr <= 0 or not 0 <= self.ema < 1:
            raise ConfigError(f"learning rates must be positive and ema in [0, 1); got {self}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)
