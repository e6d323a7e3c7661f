"""Peak memory of a stretch of work."""

import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peak(device: torch.device) -> None:
    """Start measuring anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        try:
            _CLEAR.write_text("5")  # Linux: the peak resident size becomes the current one
        except OSError:
            return  # not permitted in this container: the peak is then that of the whole process


def peak_bytes(device: torch.device) -> int:
    """Most memory in use since ``reset_peak``: allocated on a GPU, resident in the process elsewhere.

    Where resident size can't be reset it is the peak of the whole process; 0 where it is unknown.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
