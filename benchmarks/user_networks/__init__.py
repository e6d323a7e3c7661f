"""Small networks as people write them, each with its task: the suite of ``benchmarks/users.py``."""

from user_networks import (
    autoencoders,
    composed,
    fields,
    generative,
    graphs,
    images,
    mechanisms,
    sequences,
    tabular,
)
from user_networks.task import Network, Task

SUITE: dict[str, Network] = {
    name: entry
    for module in (tabular, autoencoders, generative, fields, sequences, images, graphs, composed, mechanisms)
    for name, entry in module.network.networks.items()
}
"""All networks by name."""

__all__ = ["SUITE", "Network", "Task"]
