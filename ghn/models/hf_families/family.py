"""What a transformers model type needs so that it can be built and called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ghn.models.hf_facts import Facts

Arguments = Callable[[Facts], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What differs from the rule for a model type; most need nothing, as arguments go by their names.

    Rules are in ``ghn.models.hf_inputs``.
    """

    layout: str = ""
    """Axes of ``pixel_values`` that aren't (b, c, h, w): also n images, 2 of a pair, t frames, p patches of size
    (y, x)."""
    arguments: Arguments | None = None
    """Arguments that replace those of the rules; None as a value leaves one out."""
    further: tuple[Arguments, ...] = ()
    """What further calls change in the arguments of the first, where one call leaves a branch out."""
    image_tokens: Callable[[Facts], int] | None = None
    """Number of image features that join the sequence, where running its tower alone doesn't tell."""
    sound_tokens: Callable[[Facts], int] | None = None
    """Number of audio features that join the sequence, likewise."""
    repairs: Mapping[str, Any] = field(default_factory=dict)
    """Settings with which the default configuration makes a model that can run."""


def each(*kinds: str, **what: Any) -> dict[str, Family]:
    """The same for several model types."""
    return dict.fromkeys(kinds, Family(**what))


def floats(name: str, *shape: int | None) -> Arguments:
    """One argument of a fixed shape, in which None stands for the batch."""
    return lambda facts: {name: facts.floats(*(facts.batch if size is None else size for size in shape))}
