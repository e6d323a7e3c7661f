"""What happened to every parameter of an initialized model."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ghn.base.predicted import has_rule
from ghn.graph.graph import ComputationGraph, ParamSpec

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


@dataclass(frozen=True)
class Report:
    """Every parameter name of the model exactly once, in the model's order; tied names follow the one they share."""

    parameters: tuple[ParameterReport, ...]
    notes: tuple[str, ...] = ()
    """What the tracer found worth saying."""
    origin: str = ""
    """Where the learned part is from, or why there is none."""

    @classmethod
    def of(
        cls,
        graph: ComputationGraph,
        predicted: frozenset[str],
        learned: Mapping[str, float] | None = None,
        origin: str = "",
    ) -> "Report":
        """Report on a graph of which the named parameters were predicted, each with its learned share."""
        return cls(tuple(_entries(graph, predicted, learned or {})), graph.notes, origin)

    @property
    def learned(self) -> float:
        """Share of the variance of all predicted numbers that is learned, in [0, 1]."""
        entries = [entry for entry in self.parameters if entry.fate == "predicted"]
        numbers = [math.prod(entry.shape) for entry in entries]
        found = sum(entry.learned * count for entry, count in zip(entries, numbers, strict=True))
        return found / max(1, sum(numbers))

    def count(self, fate: str) -> int:
        """Number of parameter names with a fate."""
        return Counter(entry.fate for entry in self.parameters)[fate]

    def __str__(self) -> str:
        lines = [", ".join(f"{self.count(fate)} {fate}" for fate in FATES)]
        lines += [f"  {self.learned:.0%} learned" + (f": {self.origin}" if self.origin else "")]
        lines += [
            f"  kept {entry.name} {entry.shape}: {entry.reason}"
            for entry in self.parameters
            if entry.fate == "kept"
        ]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


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


def _entries(
    graph: ComputationGraph, predicted: frozenset[str], learned: Mapping[str, float]
) -> Iterator[ParameterReport]:
    for spec in graph.params:
        done = spec.name in predicted
        reason, fate = ("", "predicted") if done else (why_kept(spec), "kept")
        share = learned.get(spec.name, 0.0) if done else 0.0
        yield ParameterReport(spec.name, spec.shape, spec.role, fate, reason, share)
        for alias in spec.names[1:]:
            yield ParameterReport(alias, spec.shape, spec.role, "tied", f"shares the tensor of {spec.name!r}")
