"""What a bug report or a result row must say about the machine and the software."""

import os
import platform
import re
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch

from ghn import __version__


def versions() -> dict[str, str]:
    """Versions of ghn, Python and every dependency of ghn, by distribution name."""
    return {
        "ghn": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _dependencies()},
    }


@lru_cache(maxsize=1)
def commit() -> str:
    """Commit of the clone that this package runs from, when first asked; 'unknown' for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "unknown"
    try:
        process = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return process.stdout.strip()


def machine() -> dict[str, str]:
    """Operating system, processor, memory and accelerators, in words."""
    return {
        "platform": platform.platform(),
        "cores": f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}",
        "threads": f"{torch.get_num_threads()}",
        "memory": _memory(),
        "device": default_device(),
        "accelerators": ", ".join(_accelerators()) or "none",
    }


def default_device() -> str:
    """``cuda`` or ``mps`` where there is one, else ``cpu``."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _dependencies() -> list[str]:
    """Names in our own metadata; extras are left out. A clone that was not installed has no metadata: the essential."""
    try:
        requirements = [text for text in requires("ghn") or [] if "extra ==" not in text]
    except PackageNotFoundError:
        requirements = ["torch", "torchvision", "torch-geometric", "timm", "transformers", "safetensors"]
    return sorted(re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in requirements)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _memory() -> str:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return "unknown"
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"


def _accelerators() -> list[str]:
    return [
        f"{torch.cuda.get_device_name(index)} "
        f"({torch.cuda.get_device_properties(index).total_memory / 2**30:.0f} GiB)"
        for index in range(torch.cuda.device_count())
    ]
