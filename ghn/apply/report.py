"""What happened to every parameter of an initialized model."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ghn.base.predicted import has_rule
from ghn.decoder import Prediction
from ghn.graph.graph import ParamSpec

FATES = ("predicted", "tied", "kept")


@dataclass(frozen=True)
class ParameterReport:
    """Fate of one parameter name."""

    name: str
    shape: tuple[int, ...]
    role: str
    fate: str
    """'predicted', 'tied' (shares the tensor of another name) or 'kept' (the model's own values)."""
    reason: str
    """Name it is tied to, or why it was kept; empty when predicted."""
    learned: float = 0.0
    """Share of its variance that is learned, in [0, 1]; the rest is the base, made by rules."""
    rule: str = ""
    """Name of the rule that says how it starts, if it is predicted; see ``ghn.base``."""
    modifiers: tuple[str, ...] = ()
    """Names of the modifiers that changed that, in order."""
    mean: float | None = None
    """Where its base lies; None if that isn't one number, or it isn't predicted."""
    std: float | None = None
    """Standard deviation of a random base; 0 of a constant, None if it isn't predicted."""


@dataclass(frozen=True)
class Report:
    """Every parameter name of the model exactly once, in the model's order; tied names follow the one they share."""

    parameters: tuple[ParameterReport, ...]
    notes: tuple[str, ...] = ()
    """What the tracer found worth saying."""
    origin: str = ""
    """Where the learned part is from, or why there is none."""

    @classmethod
    def of(cls, prediction: Prediction) -> "Report":
        """Fate of every parameter of a target, by which rule it starts, and how much of it is learned."""
        shares, origin = prediction.learned_shares()
        return cls(tuple(_entries(prediction, shares)), prediction.graph.notes, origin)

    @property
    def learned(self) -> float:
        """Share of the variance of all predicted numbers that is learned, in [0, 1]."""
        entries = [entry for entry in self.parameters if entry.fate == "predicted"]
        numbers = [math.prod(entry.shape) for entry in entries]
        total = sum(entry.learned * count for entry, count in zip(entries, numbers, strict=True))
        return total / max(1, sum(numbers))

    def count(self, fate: str) -> int:
        """Number of parameter names with a fate."""
        return Counter(entry.fate for entry in self.parameters)[fate]

    def by_rule(self) -> dict[str, list[ParameterReport]]:
        """The predicted parameters of each rule, by its name; the rule with most numbers first."""
        groups: dict[str, list[ParameterReport]] = defaultdict(list)
        for entry in self.parameters:
            if entry.fate == "predicted":
                groups[entry.rule].append(entry)
        return dict(sorted(groups.items(), key=lambda item: -_numbers(item[1])))

    def explain(self) -> str:
        """A table of every parameter: name, shape, rule with its modifiers, mean and standard deviation of the base."""
        rows: list[tuple[str, ...]] = [("parameter", "shape", "rule", "mean", "std")]
        for entry in self.parameters:
            rule = " × ".join((entry.rule, *entry.modifiers)) or entry.fate
            numbers = ("" if number is None else f"{number:.4g}" for number in (entry.mean, entry.std))
            rows.append((entry.name, "×".join(map(str, entry.shape)), rule, *numbers))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that ``json.dumps`` takes."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [", ".join(f"{self.count(fate)} {fate}" for fate in FATES)]
        lines += [f"  {self.learned:.0%} learned" + (f": {self.origin}" if self.origin else "")]
        lines += [
            f"  rule {rule}: {_quantity(len(entries), 'tensor')}, {_quantity(_numbers(entries), 'number')}"
            for rule, entries in self.by_rule().items()
            if rule
        ]
        lines += [
            f"  kept {entry.name} {entry.shape}: {entry.reason}"
            for entry in self.parameters
            if entry.fate == "kept"
        ]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def _numbers(entries: Iterable[ParameterReport]) -> int:
    return sum(math.prod(entry.shape) for entry in entries)


def _quantity(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def why_kept(spec: ParamSpec) -> str:
    """Why a parameter isn't predicted: nothing uses it, it is fixed, or no rule covers it."""
    if has_rule(spec):
        return "it is fixed (requires_grad=False)"
    if spec.reason:
        return spec.reason
    if not spec.dtype.is_floating_point:
        return f"it holds {str(spec.dtype).removeprefix('torch.')}: rules are for real numbers"
    if not spec.numel:
        return "it is empty"
    return f"its role is {spec.role!r}: no rule says what it should be"


def _entries(prediction: Prediction, shares: Mapping[str, float]) -> Iterator[ParameterReport]:
    decisions = prediction.decisions
    for spec in prediction.graph.params:
        decision = decisions.get(spec.name)
        if decision is None:
            yield ParameterReport(spec.name, spec.shape, spec.role, "kept", why_kept(spec))
        else:
            init = decision.init
            yield ParameterReport(
                spec.name,
                spec.shape,
                spec.role,
                "predicted",
                "",
                learned=shares.get(spec.name, 0.0),
                rule=decision.rule,
                modifiers=decision.modifiers,
                mean=None if isinstance(init.mean, Tensor) else init.mean,
                std=init.std if init.random else 0.0,
            )
        for alias in spec.names[1:]:
            yield ParameterReport(alias, spec.shape, spec.role, "tied", f"shares the tensor of {spec.name!r}")
