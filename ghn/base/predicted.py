"""Which parameters are predicted."""

from ghn.graph.graph import ComputationGraph, ParamSpec


def has_rule(spec: ParamSpec) -> bool:
    """Whether a rule says what the parameter should be."""
    known = spec.node is not None and spec.role != "unknown" and not spec.reason
    return known and spec.dtype.is_floating_point


def predicted_params(graph: ComputationGraph) -> list[ParamSpec]:
    """Parameters that are predicted, in the order of ``graph.params``; the model keeps its own values of the others.

    Fixed ones (``requires_grad=False``), such as tables of sines, are kept, unless the whole model is fixed.
    """
    all_fixed = not any(spec.trainable for spec in graph.params)
    return [spec for spec in graph.params if has_rule(spec) and (all_fixed or spec.trainable)]


def predicted_names(graph: ComputationGraph) -> frozenset[str]:
    """First names of ``predicted_params``."""
    return frozenset(spec.name for spec in predicted_params(graph))
