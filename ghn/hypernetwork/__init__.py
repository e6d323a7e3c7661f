"""The hypernetwork: a graph goes in, the parameters of the network that it describes come out."""

from ghn.hypernetwork.config import FORMAT_VERSION, GHNConfig
from ghn.hypernetwork.network import GHN

__all__ = ["FORMAT_VERSION", "GHN", "GHNConfig"]
