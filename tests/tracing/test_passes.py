"""Each pass on the smallest model that shows it; none loses a parameter."""

import pytest
import torch
from torch import Tensor, nn

from ghn.tracing.trace import trace


class Model(nn.Module):
    """Two maps and a vector, and what is to happen between them."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.vector = nn.Parameter(torch.rand(8))
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x), self.vector))


def kinds(between) -> list[str]:
    graph = trace(Model(between), torch.rand(2, 4, 8))
    assert graph.coverage() == 1
    return [node.kind for node in graph.nodes if node.kind not in ("parameter", "input", "output", "linear")]


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        (lambda x, v: x * (v.square() + 1).exp(), ["mul"]),  # constants are folded
        (lambda x, v: x.mT.contiguous().mT * v, ["mul"]),  # shape operations are bypassed
        (
            lambda x, v: (0.5 * x * (1 + torch.erf(x))).cumsum(1) * v,
            ["gelu", "cumsum", "mul"],
        ),  # clutter is merged
        (lambda x, v: (x @ x.mT).softmax(-1) @ (x * v), ["mul", "attention"]),  # attention is fused
        (lambda x, v: (x.sum(), x * v)[1], ["mul"]),  # what nobody reads is dropped
    ],
    ids=["fold_constants", "bypass", "merge_elementwise", "fuse_attention", "drop_unread"],
)
def test_what_a_pass_leaves(between, expected):
    assert kinds(between) == expected


def test_without_passes_every_operation_is_there():
    graph = trace(Model(lambda x, v: x.mT.contiguous().mT * v), torch.rand(2, 4, 8), simplify=False)
    assert sum(node.kind == "shape" for node in graph.nodes) >= 2


def test_what_nobody_reads_stays_if_only_it_uses_a_parameter():
    assert kinds(lambda x, v: (x * v, x)[1]) == ["mul"]
