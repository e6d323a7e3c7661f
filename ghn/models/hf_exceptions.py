"""Model types whose arguments differ from what their names say elsewhere."""

from collections.abc import Callable
from typing import Any

from ghn.models.hf_facts import Facts

PIXEL_LAYOUTS: dict[str, str] = {
    **dict.fromkeys(("idefics", "idefics2", "idefics3", "smolvlm"), "bnchw"),
    **dict.fromkeys(("videomae", "vivit", "timesformer", "xclip", "tvp"), "btchw"),
}
"""Axes of ``pixel_values`` that aren't (b, c, h, w): also n images, t frames."""

EXCEPTIONS: dict[str, Callable[[Facts], dict[str, Any]]] = {}
"""Model type -> arguments that replace those of the rules; None leaves an argument out."""
