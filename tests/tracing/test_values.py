"""What the target is told about values: the truth about constants, one story about the rest."""

import pytest
import torch
from torch import nn

from ghn.errors import TraceError
from ghn.tracing.trace import trace


class Branches(nn.Module):
    """Two layers, of which a condition chooses one."""

    def __init__(self, condition):
        super().__init__()
        self.condition = condition
        self.yes, self.no = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, ids):
        return self.yes(x) if self.condition(x, ids) else self.no(x)


@pytest.mark.parametrize(
    "condition",
    [
        lambda x, ids: bool((ids == 7).to(x.device, torch.bool).any()),  # the device is no keyword
        lambda x, ids: int((ids == 7).unsqueeze(-1).expand_as(x).sum()) == 4,
        lambda x, ids: bool((torch.as_tensor(ids, device=x.device) == 7).any()),
    ],
)
@pytest.mark.parametrize(("token", "layer"), [(7, "yes"), (0, "no")])
def test_constants_stay_known_next_to_unknown_values(condition, token, layer):
    graph = trace(Branches(condition), (torch.randn(3, 4), torch.tensor([token, 1, 2])))
    # Were the condition unknown, the other branch would be tried as well.
    assert {spec.name for spec in graph.params if spec.node is not None} == {
        f"{layer}.weight",
        f"{layer}.bias",
    }


def test_a_list_of_unknown_integers_reads_like_a_single_one():
    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            rows = (x.sum() > 0).reshape(1).sum(0, keepdim=True)
            assert rows.tolist() == [rows.item()]
            return self.layer(x)

    assert trace(Split(), torch.randn(1, 4)).coverage() == 1.0


def test_grouped_products_need_no_aligned_rows():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.bank = nn.Parameter(torch.zeros(2, 7, 5))

        def forward(self, x):
            return torch.nn.functional.grouped_mm(x, self.bank, offs=torch.tensor([3, 6], dtype=torch.int32))

    graph = trace(Experts(), torch.randn(6, 7))
    assert graph.coverage() == 1.0
    assert graph.nodes[-1].shape == (6, 5)


def test_shapes_that_depend_on_too_many_values_are_refused():
    class Huge(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2**15, 1)

        def forward(self, x):
            return self.layer(x)[x > 0]

    with pytest.raises(TraceError, match="index"):
        trace(Huge(), torch.empty(2**15, 2**15, device="meta"))
