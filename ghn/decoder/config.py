"""Settings of the decoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ghn.base.sampling import BASES
from ghn.base.schemes import SCHEMES
from ghn.decoder.low_rank import HEAD_RULES
from ghn.errors import ConfigError

MOST = 2**20
"""Of any size; a larger one is a mistake, or damage."""

SLOT_NUMBERS = 8
"""Sizes of a slot: the fields of ``ghn.decoder.slots.SlotSize``; the last may be missing."""

DENSE = -1
"""Instead of a slot's rank: its matrix itself is learned."""

MOST_GAIN = 1e3
"""Of ``max_gain``: with far more, predictions needn't be finite."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Size and output form of the decoder."""

    hidden: int = 96
    """Width of the row and column generators."""
    rank: int = 32
    """Width of the factors."""
    base: str = "orthogonal"
    """Random part of mixing parameters: 'orthogonal', 'normal', or 'none': then nothing random enters anywhere, and
    everything that a random part would fill is learned."""
    scheme: str = "adaptive"
    """Rules of matrices and kernels: 'fan_in' or 'fan_out' of all, or 'adaptive', each by what the graph says of it."""
    output: str = "normalized"
    """'normalized': factors are centred and orthonormalized, and their product has the size that the rule says.
    'hyperfan', 'xavier', 'kaiming': the raw product, with heads initialized by that rule; hyperfan's comes out at the
    rule's size, the others' at whatever it is, as in earlier graph hypernetworks (only with ``base='none'``)."""
    scope: str = "io"
    """What has a learned part beside its random one: 'io' (matrices that the model's inputs or outputs touch, see
    ``ParamContext.is_input_or_output``, and vectors), 'tokens' (those in models that look tokens up, and in others
    nothing) or 'all'."""
    max_trust: float = 0.1
    """Largest share (as a standard deviation) of the learned part. With more, language models start lower and end
    higher: by 0.02 bits per byte with 0.2, by 0.06 with 0.7 (docs/log/how-much-trust.md)."""
    max_gain: float = 1.0
    """Predicted sizes stay within this factor of the rule's. 1 keeps the rule's: a hypernetwork that may change
    them lowers the loss of short trainings by it, at the cost of long ones."""

    slots: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Sizes of the slots that networks share (see ``ghn.decoder.slots.SlotSize``), by family, stage and kind of place.
    Without any, what is learned comes from generators of rows and columns."""

    def __post_init__(self) -> None:
        if self.base not in BASES or self.scheme not in SCHEMES:
            raise ConfigError(
                f"base must be one of {BASES} and scheme one of {SCHEMES}; got {self.base!r}, {self.scheme!r}"
            )
        if self.scope not in ("tokens", "io", "all"):
            raise ConfigError(f"scope must be 'tokens', 'io' or 'all'; got {self.scope!r}")
        if self.output not in ("normalized", *HEAD_RULES):
            raise ConfigError(f"output must be 'normalized' or one of {HEAD_RULES}; got {self.output!r}")
        if self.output in ("xavier", "kaiming") and self.base != "none":
            raise ConfigError(
                f"output={self.output!r} has no scale for a base; set base='none' or use 'hyperfan'"
            )
        if not 1 <= min(self.hidden, self.rank) <= max(self.hidden, self.rank) <= MOST:
            raise ConfigError(
                f"decoder sizes must be from 1 to {MOST}; got hidden={self.hidden}, rank={self.rank}"
            )
        if not 0 < self.max_trust < 1 or not 1 <= self.max_gain <= MOST_GAIN:
            raise ConfigError(
                f"decoder needs 0 < max_trust < 1 and 1 <= max_gain <= {MOST_GAIN:g}; got max_trust={self.max_trust}, "
                f"max_gain={self.max_gain}"
            )
        for key, sizes in self.slots.items():
            _check_slot(key, sizes)


_OLD_NAMES = {"fan": "scheme"}
"""Settings as files spell them, whose format is older than the names here."""

_OLD_VALUES = {"scheme": {"zoo": "adaptive"}, "scope": {"edges": "io"}}


def from_file(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of config.json by the names here, which files may have, too."""
    named = {_OLD_NAMES.get(name, name): value for name, value in values.items()}
    return {
        name: _OLD_VALUES.get(name, {}).get(value, value) if isinstance(value, str) else value
        for name, value in named.items()
    }


def to_file(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as config.json spells them, so that equal checkpoints keep equal files and fingerprints."""
    names = {new: old for old, new in _OLD_NAMES.items()}
    spelled = {name: {new: old for old, new in pairs.items()} for name, pairs in _OLD_VALUES.items()}
    return {
        names.get(name, name): spelled[name].get(value, value) if name in spelled else value
        for name, value in values.items()
    }


def _check_slot(key: str, sizes: Sequence[int]) -> None:
    """Check one entry of ``DecoderConfig.slots``."""
    numbers = list(sizes) if isinstance(sizes, list | tuple) else []
    if not SLOT_NUMBERS - 1 <= len(numbers) <= SLOT_NUMBERS or any(type(n) is not int for n in numbers):
        raise ConfigError(
            f"slot {key!r} has sizes {sizes!r}; expected {SLOT_NUMBERS - 1} or {SLOT_NUMBERS} whole numbers"
        )
    counts, (rank, *part_units) = numbers[: SLOT_NUMBERS - 2], numbers[SLOT_NUMBERS - 2 :]
    within = 1 <= min(counts) <= max(counts) <= MOST and all(0 <= units <= MOST for units in part_units)
    if not within or not DENSE <= rank <= MOST:
        raise ConfigError(
            f"slot {key!r} has sizes {sizes!r}; expected numbers from 1 to {MOST}, and a rank of 0 or more, or {DENSE}"
        )
