"""Train a hypernetwork over many targets."""

from ghn.metatrain.config import MetaTrainConfig
from ghn.metatrain.loop import metatrain

__all__ = ["MetaTrainConfig", "metatrain"]
