"""Graph hypernetworks: initialize any PyTorch model with predicted weights.

``ghn.init_(model)`` writes weights predicted by the shipped checkpoint; see the README for the rest.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("ghn")
except PackageNotFoundError:  # a clone that was not installed
    __version__ = "0+unknown"

if TYPE_CHECKING:
    from ghn.apply.calibrate import calibrate_
    from ghn.errors import GhnError
    from ghn.graph.graph import ComputationGraph, Edge, Node, ParamSpec
    from ghn.hypernetwork import GHN, GHNConfig
    from ghn.models import example_inputs, list_models, load_model
    from ghn.shortcut import init_
    from ghn.tracing.trace import trace

_HOMES = {
    "trace": "ghn.tracing.trace",
    "ComputationGraph": "ghn.graph.graph",
    "Node": "ghn.graph.graph",
    "Edge": "ghn.graph.graph",
    "ParamSpec": "ghn.graph.graph",
    "load_model": "ghn.models",
    "list_models": "ghn.models",
    "example_inputs": "ghn.models",
    "GHN": "ghn.hypernetwork",
    "GHNConfig": "ghn.hypernetwork",
    "init_": "ghn.shortcut",
    "calibrate_": "ghn.apply.calibrate",
    "GhnError": "ghn.errors",
}
"""Module of each public name; imported on first use, so that ``import ghn`` and ``ghn --help`` are quick."""

__all__ = [
    "GHN",
    "ComputationGraph",
    "Edge",
    "GHNConfig",
    "GhnError",
    "Node",
    "ParamSpec",
    "__version__",
    "calibrate_",
    "example_inputs",
    "init_",
    "list_models",
    "load_model",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ghn' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
