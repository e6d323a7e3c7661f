"""Random bases: keyed, orthogonal by block, the same bits for every part."""

import math

import pytest
import torch

from ghn.base.blocks import BLOCK_ELEMENTS, Grid, keyed_generator
from ghn.base.orthogonal import orthogonalize, tile_width, tiled_factors
from ghn.base.sampling import base_blocks, sample_block, sinusoids
from ghn.graph.graph import ParamSpec
from ghn.graph.layout import Layout

CPU = torch.device("cpu")
ONE = torch.ones(())
GRIDS = [
    Grid(1, 1, 1),
    Grid(1, 1000, 10),
    Grid(1, 300, BLOCK_ELEMENTS // 2),
    Grid(1, 5, 2 * BLOCK_ELEMENTS),
    Grid(768, 1, 49),
    Grid(32, 8, 72),
    Grid(4, 192, 48),
    Grid(3, 700, 640),
    Grid(1, 1280, 1280),
    Grid(1, 300, 131),
]


def base_matrix(kind, seed, name, grid, device):
    """The whole base of a parameter, shape ``(grid.height, grid.columns)``."""
    drawn = (sample_block(kind, seed, name, grid, block).to(device) for block in base_blocks(kind, grid))
    return torch.cat([entry.make(0, entry.bands, ONE) for entry in drawn])


def layout(shape: tuple[int, ...], axes: str = "out in", groups: int = 1) -> Layout:
    return Layout.of(ParamSpec(names=("p",), shape=shape, axes=tuple(axes.split()), groups=groups))


@pytest.mark.parametrize("kind", ["orthogonal", "normal", "uniform", "sinusoids"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_blocks_cover_all_rows_once(grid, kind):
    position = 0
    for block in base_blocks(kind, grid):
        assert block.start == position
        assert block.matrices == 1 or block.rows == grid.rows
        assert block.height * block.columns <= max(BLOCK_ELEMENTS, grid.columns)
        position += block.height
    assert position == grid.height


@pytest.mark.parametrize("grid", [grid for grid in GRIDS if grid.height * grid.columns < 2**22], ids=str)
def test_rows_are_orthogonal_in_each_block_or_columns_where_those_are_fewer(grid):
    base = base_matrix("orthogonal", 0, "p", grid, CPU)
    assert base.shape == (grid.height, grid.columns)
    if base.numel() > 1:
        assert base.square().mean().item() == pytest.approx(1, abs=5 / math.sqrt(base.numel()))
    if min(grid.rows, grid.columns) == 1:
        return
    for block in base_blocks("orthogonal", grid):
        rows = base[block.start : block.start + block.height]
        for matrix in rows.view(block.matrices, block.rows, block.columns):
            few = matrix if block.rows <= block.columns else matrix.mT
            gram = few @ few.mT / few.shape[1]
            torch.testing.assert_close(gram, torch.eye(len(few)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("grid", [Grid(1, 1280, 1280), Grid(1, 3072, 768), Grid(1, 512, 4608)], ids=str)
def test_entries_of_large_matrices_are_nearly_normal(grid):
    base = base_matrix("orthogonal", 0, "p", grid, CPU)
    assert base.mean().abs() < 0.01
    assert 2.7 < base.pow(4).mean() / base.square().mean() ** 2 < 3.6
    assert base.abs().max() < 9
    assert 0.3 < (base.abs() < 0.5).float().mean() < 0.45  # 0.383 for normal numbers
    rows = base[torch.randperm(len(base), generator=torch.Generator().manual_seed(0))[:200]]
    assert len(rows.abs().sort(dim=1).values.unique(dim=0)) == 200  # not even up to signs and order


@pytest.mark.parametrize("grid", [Grid(1, 1280, 640), Grid(3, 700, 640), Grid(1, 640, 640)], ids=str)
def test_any_bands_of_a_block_have_the_bits_of_the_whole(grid):
    drawn = [sample_block("orthogonal", 3, "p", grid, block) for block in base_blocks("orthogonal", grid)]
    whole = torch.cat([part.make(0, part.bands, ONE) for part in drawn])
    for part in drawn:
        block = part.block
        for first, last in ((0, 1), (part.bands - 1, part.bands), (1, part.bands)):
            if first < last:
                start = block.start + first * part.band
                made = part.make(first, last, ONE)
                assert torch.equal(made, whole[start : start + len(made)])
                assert torch.equal(part.make(first, last, ONE, torch.empty_like(made)), made)


def test_names_seeds_and_blocks_give_other_numbers():
    grid = Grid(1, 100, 64)
    bases = [base_matrix("orthogonal", *key, grid, CPU) for key in ((0, "a"), (1, "a"), (0, "b"))]
    assert not any(torch.equal(bases[i], bases[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    large = base_matrix("orthogonal", 0, "a", Grid(1, 512, 128), CPU)
    assert len(large.unique(dim=0)) == 512


def test_keys_alone_decide():
    draws = {
        key: torch.randn(4, generator=keyed_generator(CPU, *key)).tolist()
        for key in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 256), (0, "a0", "")]
    }
    assert len({tuple(draw) for draw in draws.values()}) == len(draws)
    torch.randn(3)
    assert torch.randn(4, generator=keyed_generator(CPU, 0, "a", 0)).tolist() == draws[0, "a", 0]


@pytest.mark.parametrize(
    ("columns", "width"), [(768, 32), (1280, 32), (147, 21), (27, 27), (48, 24), (257, None), (13, None)]
)
def test_tiles_divide_the_columns(columns, width):
    assert tile_width(columns) == width


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (63, 147), (1, 64), (768, 768), (33, 1280)])
def test_tiled_rows_are_orthogonal(rows, columns):
    left, right = tiled_factors(rows, columns, torch.Generator().manual_seed(0))
    matrix = (left @ right).view(-1, columns)[:rows].double()
    gram = matrix @ matrix.mT / columns
    torch.testing.assert_close(gram, torch.eye(rows).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (3, 7, 5)])
def test_orthogonal_blocks_have_unit_root_mean_square(shape):
    block = orthogonalize(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    assert block.square().mean().item() == pytest.approx(1, rel=1e-4)
    gram = block @ block.mT if shape[-2] < shape[-1] else block.mT @ block
    eye = torch.eye(min(shape[-2:])) * max(shape[-2:])
    torch.testing.assert_close(gram, eye.expand_as(gram), atol=1e-3, rtol=0)


@pytest.mark.parametrize("columns", [64, 7, 2])
def test_waves_differ_at_every_position_and_are_alike_at_near_ones(columns):
    table = sinusoids(torch.arange(1024), 1024, columns, torch.Generator().manual_seed(0))
    assert table.shape == (1024, columns)
    assert len(table.unique(dim=0)) == 1024
    if columns == 64:
        torch.testing.assert_close(table.square().mean(1), torch.ones(1024), atol=1e-5, rtol=0)
        near, far = ((table[:-step] * table[step:]).mean().item() for step in (1, 512))
        assert near > 0.7 > 0.2 > abs(far)


def test_waves_have_the_same_rows_in_whatever_blocks():
    grid = Grid(1, 3000, 200)
    table = base_matrix("sinusoids", 0, "p", grid, CPU)
    assert len(base_blocks("sinusoids", grid)) > 1
    expected = sinusoids(torch.arange(3000), 3000, 200, keyed_generator(CPU, 0, "p"))
    torch.testing.assert_close(table, expected)
    assert not torch.equal(table, base_matrix("sinusoids", 1, "p", grid, CPU))
