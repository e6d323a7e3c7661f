"""Every layout can be undone, whatever the order and the roles of the axes."""

import math

import pytest
import torch

from ghn.decoder.positions import POSITION_FEATURES, axis_positions
from ghn.graph.graph import ParamSpec
from ghn.graph.layout import Layout


def spec(role: str, shape: tuple[int, ...], axes: str, groups: int = 1) -> ParamSpec:
    return ParamSpec(names=("p",), shape=shape, role=role, axes=tuple(axes.split()), groups=groups, node=0)


SPECS = {
    "linear": (spec("linear", (6, 4), "out in"), (6, 4)),
    "Conv1D of GPT-2": (spec("linear", (4, 6), "in out"), (6, 4)),
    "convolution": (spec("conv", (6, 4, 3, 3), "out in spatial spatial"), (6, 36)),
    "grouped": (spec("conv", (6, 2, 3, 3), "out in spatial spatial", 2), (6, 18)),
    "depthwise": (spec("conv", (6, 1, 3), "out one spatial", 6), (6, 3)),
    "transposed": (spec("conv_transpose", (4, 6, 2, 2), "in out spatial spatial"), (6, 16)),
    "LSTM": (spec("recurrent_hidden", (24, 6), "out in", 4), (24, 6)),
    "experts": (spec("expert", (3, 4, 6), "expert in out"), (18, 4)),
    "embedding": (spec("embedding", (10, 4), "table channel"), (10, 4)),
    "image position": (spec("position", (1, 4, 3, 3), "one channel table table"), (9, 4)),
    "relative bias": (spec("relative_bias", (9, 2), "table head"), (18, 1)),
    "vector": (spec("bias", (5,), "channel"), (1, 5)),
    "scalar": (spec("scale", (), ""), (1, 1)),
    "unknown": (spec("unknown", (2, 3), "unknown unknown"), (6, 1)),
}


@pytest.mark.parametrize("name", SPECS)
def test_restore_inverts_the_layout(name):
    spec, size = SPECS[name]
    layout = Layout.of(spec)
    assert (layout.rows, layout.columns) == size
    tensor = torch.arange(spec.numel).reshape(spec.shape)
    matrix = tensor.permute(layout.permutation).reshape(size)
    assert torch.equal(layout.restore(matrix), tensor)


@pytest.mark.parametrize("name", SPECS)
def test_rows_are_what_an_output_reads(name):
    """Fixing the axes of the rows in the tensor leaves exactly one row of the matrix."""
    spec, _ = SPECS[name]
    layout = Layout.of(spec)
    tensor = layout.restore(torch.arange(layout.rows)[:, None].expand(layout.rows, layout.columns))
    reads = {"in", "spatial", "channel"}
    corner = tensor[tuple(slice(0, 1) if axis in reads else slice(None) for axis in spec.axes)]
    assert sorted(corner.reshape(-1).tolist()) == list(range(layout.rows))


def test_groups_and_gates_number_the_rows_first():
    assert Layout.of(SPECS["LSTM"][0]).row_sizes == (4, 6)
    assert Layout.of(SPECS["grouped"][0]).row_sizes == (2, 3)


@pytest.mark.parametrize("sizes", [(5000,), (3, 7), (2, 3, 4), (4, 3, 3), ()])
def test_positions_differ_and_have_one_norm(sizes):
    positions = axis_positions(sizes, spatial=2 if sizes == (4, 3, 3) else 0, device=torch.device("cpu"))
    assert positions.shape == (math.prod(sizes), POSITION_FEATURES)
    torch.testing.assert_close(
        positions.norm(dim=-1), torch.full((len(positions),), math.sqrt(POSITION_FEATURES / 2))
    )
    assert len(positions.unique(dim=0)) == len(positions)
