"""Random bases: keyed by seed and name, orthogonal by block, smooth without losing variance."""

import pytest
import torch

from ghn.decoder.base import base_matrix, orthogonalize, smooth_kernels
from ghn.decoder.chunks import BLOCK_ELEMENTS, BLOCK_ROWS, keyed_generator, normal_block, row_blocks
from ghn.decoder.layout import Layout
from ghn.graph.graph import ParamSpec

CPU = torch.device("cpu")


def layout(shape: tuple[int, ...], axes: str = "out in", groups: int = 1) -> Layout:
    return Layout.of(ParamSpec(names=("p",), shape=shape, axes=tuple(axes.split()), groups=groups))


@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (1000, 10), (300, BLOCK_ELEMENTS // 2), (5, 2 * BLOCK_ELEMENTS)]
)
def test_blocks_cover_all_rows_once(rows, columns):
    covered = [row for start, stop in row_blocks(rows, columns) for row in range(start, stop)]
    assert covered == list(range(rows))
    assert all(stop - start <= BLOCK_ROWS for start, stop in row_blocks(rows, columns))


def test_a_block_drawn_alone_equals_the_block_of_the_whole():
    whole = base_matrix("normal", 3, "p", layout((600, 20)), CPU)
    assert torch.equal(whole[256:512], normal_block(3, "p", 256, 512, 20, CPU))


def test_keys_alone_decide():
    draws = {
        key: torch.randn(4, generator=keyed_generator(CPU, *key)).tolist()
        for key in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 256), (0, "a0", "")]
    }
    assert len({tuple(draw) for draw in draws.values()}) == len(draws)
    torch.randn(3)
    assert torch.randn(4, generator=keyed_generator(CPU, 0, "a", 0)).tolist() == draws[0, "a", 0]


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (1, 5), (5, 1)])
def test_orthogonal_blocks_have_unit_root_mean_square(shape):
    block = orthogonalize(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    if min(shape) > 1:
        assert block.square().mean().item() == pytest.approx(1, rel=1e-4)
        gram = block @ block.mT if shape[0] < shape[1] else block.mT @ block
        torch.testing.assert_close(gram, torch.eye(min(shape)) * max(shape), atol=1e-3, rtol=0)


def test_gates_get_orthogonal_blocks_of_their_own():
    base = base_matrix("orthogonal", 0, "p", layout((24, 6), groups=4), CPU)
    for gate in base.split(6):
        torch.testing.assert_close(gate @ gate.mT, 6 * torch.eye(6), atol=1e-4, rtol=0)


@pytest.mark.parametrize("smoothness", [0.0, 0.05, 0.5])
@pytest.mark.parametrize(
    ("shape", "axes"), [((64, 16, 7, 7), "out in spatial spatial"), ((256, 1, 9), "out one spatial")]
)
def test_smoothing_keeps_the_variance(smoothness, shape, axes):
    form = layout(shape, axes)
    white = base_matrix("normal", 0, "p", form, CPU)
    smooth = smooth_kernels(white, form, torch.tensor(smoothness))
    assert smooth.std().item() == pytest.approx(white.std().item(), rel=0.1)
    kernels = smooth.reshape(-1, *shape[2:])
    neighbours = (kernels[..., 1:] * kernels[..., :-1]).mean() / kernels.square().mean()
    expected = pytest.approx(0, abs=0.05) if smoothness == 0 else pytest.approx(0.5, abs=0.48)
    assert neighbours.item() == expected


def test_smoothing_leaves_matrices_alone():
    white = torch.randn(4, 6)
    assert smooth_kernels(white, layout((4, 6)), torch.tensor(1.0)) is white
